"""A Pipecat bot, as its documentation has it: `python pipecat_bot.py ADDRESS PORT CERTIFICATE FOLDER REST_URL KEY`.

It says a tone, keeps what it hears in FOLDER, lets itself be interrupted by the key `*`, and ends the call when `#` is
pressed. One line of JSON on its standard output for everything that happens. Runs in Pipecat's own environment: nothing
of the lab is imported.
"""

import array
import json
import math
import pathlib
import sys
import time

import uvicorn
from fastapi import FastAPI, WebSocket
from pipecat.frames.frames import (
    EndWorkerFrame, InputAudioRawFrame, InputDTMFFrame, InterruptionWorkerFrame, OutputAudioRawFrame)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.exotel import ExotelFrameSerializer
from pipecat.serializers.plivo import PlivoFrameSerializer
from pipecat.serializers.telnyx import TelnyxFrameSerializer
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.serializers.vonage import VonageFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

ADDRESS, PORT, CHAIN, FOLDER, REST, KEY = sys.argv[1:7]
SECONDS, HERTZ, SAID, HEARD = 20, 1000, 24000, 16000
app = FastAPI()


def tell(what, **more):
    """One line for whoever watches."""
    print(json.dumps({"what": what, "at": time.time()} | more), flush=True)


def second():
    """One second of the tone, at -10 dBFS."""
    high = 32767 * 10 ** (-10 / 20)
    return array.array("h", [int(high * math.sin(2 * math.pi * HERTZ * n / SAID)) for n in range(SAID)]).tobytes()


class Ear(FrameProcessor):
    """Keeps the sound of the user and does what the keys say."""

    def __init__(self, path):
        super().__init__()
        self.file = open(path, "wb")

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            if not self.file.closed:
                self.file.write(frame.audio)
        elif isinstance(frame, InputDTMFFrame):
            tell("key", key=frame.button.value)
            if frame.button.value in "*#":
                await self.push_frame(InterruptionWorkerFrame())
            if frame.button.value == "#":
                await self.push_frame(EndWorkerFrame())
        else:
            await self.push_frame(frame, direction)


@app.websocket("/{dialect}")
async def serve(websocket: WebSocket, dialect: str):
    """One call."""
    await websocket.accept()
    packet = None
    if dialect == "vonage":
        kind, data, serializer, packet = dialect, {}, VonageFrameSerializer(), 640
    else:
        kind, data = await parse_telephony_websocket(websocket)
        stream, call = data["stream_id"], data["call_id"]
        if kind == "twilio":
            serializer = TwilioFrameSerializer(stream_sid=stream, call_sid=call, account_sid="AC" + "0" * 32, auth_token=KEY, base_url=REST)
        elif kind == "telnyx":
            encoding = data["outbound_encoding"]
            serializer = TelnyxFrameSerializer(stream_id=stream, outbound_encoding=encoding, inbound_encoding=encoding,
                                               params=TelnyxFrameSerializer.InputParams(auto_hang_up=False))
        elif kind == "plivo":
            serializer = PlivoFrameSerializer(stream_id=stream, params=PlivoFrameSerializer.InputParams(auto_hang_up=False))
        elif kind == "exotel":
            serializer = ExotelFrameSerializer(stream_sid=stream, call_sid=call)
        else:
            tell("unknown", data=str(data))
            return
    path = pathlib.Path(FOLDER) / f"{dialect}-{time.time_ns()}.pcm"
    tell("call", dialect=dialect, kind=kind, data=dict(data), file=str(path), rate=HEARD)
    transport = FastAPIWebsocketTransport(websocket=websocket, params=FastAPIWebsocketParams(
        audio_in_enabled=True, audio_out_enabled=True, serializer=serializer, fixed_audio_packet_size=packet))
    ear = Ear(path)
    worker = PipelineWorker(Pipeline([transport.input(), ear, transport.output()]),
                            params=PipelineParams(audio_in_sample_rate=HEARD, audio_out_sample_rate=SAID), enable_rtvi=False)

    @transport.event_handler("on_client_connected")
    async def connected(*_):
        tone = second()
        await worker.queue_frames([OutputAudioRawFrame(tone, SAID, 1) for _ in range(SECONDS)])

    @transport.event_handler("on_client_disconnected")
    async def disconnected(*_):
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
    ear.file.close()
    tell("over", dialect=dialect, file=str(path))


uvicorn.run(app, host=ADDRESS, port=int(PORT), ssl_certfile=CHAIN, log_level="warning", ws_ping_interval=None)
