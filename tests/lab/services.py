"""Stand-ins for the cloud services whose agents have protocols of their own: they say what the makers document, in the
documented order or in a wrong one, and complain of what a service would not take."""

import base64
import json

from bot import Pcm16


def _b64(data):
    return base64.b64encode(data).decode()


class Service(Pcm16):
    """What the three have in common. `order`: right | wrong (what begins a session comes late) | refused | failing."""

    hello = None                # the message of ours that sets the session up

    def __init__(self, rate, order="right"):
        super().__init__(rate)
        self.order = order

    def kind(self, message):
        name = message.get("type")
        return "start" if name == self.hello else name

    def names(self, start):
        return None, None

    def mark(self, name, stream):
        raise NotImplementedError("it has no marks")


class OpenAi(Service):
    """Realtime: `session.created`, our `session.update`, `session.updated`; sound as base64 at 24 kHz."""

    hello = "session.update"

    def __init__(self, order="right"):
        super().__init__(24000, order)
        self.item = "item_1"

    def opens(self):
        if self.order == "wrong":       # sound of nobody knows what, and an answer to what was not asked
            yield self.media(self.encode([0.0] * 480), None)
            yield json.dumps({"type": "session.updated", "session": {}})
        yield json.dumps({"type": "session.created", "session": {"type": "realtime"}})
        yield json.dumps({"type": "rate_limits.updated", "rate_limits": []})

    def replies(self, message):
        if self.kind(message if isinstance(message, dict) else {}) != "start":
            return
        session = message["session"]
        audio = session["audio"]
        if session["type"] != "realtime" or audio["input"]["format"] != {"type": "audio/pcm", "rate": 24000}:
            yield json.dumps({"type": "error", "error": {"message": f"Invalid session: {session}"}})
        elif self.order == "refused":
            yield json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": "No such voice"}})
        else:
            yield json.dumps({"type": "session.updated", "session": session})
            if self.order == "failing":
                yield json.dumps({"type": "response.done", "response": {"status": "failed", "status_details": {
                    "error": {"message": "You exceeded your current quota"}}}})

    def sound_of(self, message):
        if message.get("type") == "input_audio_buffer.append":
            return base64.b64decode(message["audio"], validate=True)
        return None

    def media(self, data, stream):
        return json.dumps({"type": "response.output_audio.delta", "item_id": self.item, "content_index": 0, "delta": _b64(data)})

    def clear(self, stream):
        return json.dumps({"type": "input_audio_buffer.speech_started", "audio_start_ms": 1})

    def digit(self, message):
        return message["item"]["content"][0]["text"]

    digits = "conversation.item.create"

    def line(self, text):
        return json.dumps({"type": "response.output_audio_transcript.done", "transcript": text})

    def tool(self, name, arguments):
        return json.dumps({"type": "response.output_item.done", "item": {
            "type": "function_call", "name": name, "call_id": "call_1", "arguments": json.dumps(arguments)}})


class Deepgram(Service):
    """Voice Agent: `Welcome`, our `Settings`, `SettingsApplied`; then binary sound at 16 kHz and JSON events."""

    hello, digits = "Settings", "InjectUserMessage"

    def __init__(self, order="right"):
        super().__init__(16000, order)

    def opens(self):
        if self.order == "wrong":
            yield json.dumps({"type": "SettingsApplied"})
        yield json.dumps({"type": "Welcome", "request_id": "r"})

    def replies(self, message):
        if not isinstance(message, dict) or self.kind(message) != "start":
            return
        audio = message["audio"]
        wanted = {"encoding": "linear16", "sample_rate": 16000}
        if self.order == "refused" or audio["input"] != wanted or audio["output"] != {**wanted, "container": "none"}:
            yield json.dumps({"type": "Error", "code": "INVALID_SETTINGS", "description": "No such voice"})
            return
        yield json.dumps({"type": "SettingsApplied"})
        if self.order == "failing":
            yield json.dumps({"type": "Error", "code": "THINK_REQUEST_FAILED", "description": "You exceeded your current quota"})

    def sound_of(self, message):
        return message if isinstance(message, bytes) else None

    def clear(self, stream):
        return json.dumps({"type": "UserStartedSpeaking"})

    def digit(self, message):
        return message["content"]

    def line(self, text):
        return json.dumps({"type": "ConversationText", "role": "assistant", "content": text})

    def tool(self, name, arguments):
        return json.dumps({"type": "FunctionCallRequest", "functions": [
            {"id": "call_1", "name": name, "arguments": json.dumps(arguments), "client_side": True}]})


class ElevenLabs(Service):
    """Agents: our `conversation_initiation_client_data`, their metadata; sound as base64 both ways, and pings."""

    hello, digits = "conversation_initiation_client_data", "contextual_update"

    def __init__(self, order="right"):
        super().__init__(16000, order)
        self.event = 0

    def opens(self):
        if self.order == "wrong":
            yield self.media(self.encode([0.0] * 320), None)
            yield json.dumps({"type": "ping", "ping_event": {"event_id": 7}})

    def replies(self, message):
        if self.kind(message if isinstance(message, dict) else {}) != "start":
            return
        output = "mp3_44100" if self.order == "refused" else "pcm_16000"
        yield json.dumps({"type": "conversation_initiation_metadata", "conversation_initiation_metadata_event": {
            "conversation_id": "c", "agent_output_audio_format": output, "user_input_audio_format": "pcm_16000"}})
        yield json.dumps({"type": "ping", "ping_event": {"event_id": 1, "ping_ms": 50}})
        if self.order == "failing":
            yield json.dumps({"type": "agent_response_correction", "agent_response_correction_event": {
                "original_agent_response": "x", "corrected_agent_response": "You exceeded your current quota"}})

    def sound_of(self, message):
        return base64.b64decode(message["user_audio_chunk"], validate=True) if "user_audio_chunk" in message else None

    def media(self, data, stream):
        self.event += 1
        return json.dumps({"type": "audio", "audio_event": {"audio_base_64": _b64(data), "event_id": self.event}})

    def clear(self, stream):
        return json.dumps({"type": "interruption", "interruption_event": {"event_id": self.event}})

    def digit(self, message):
        return message["text"]

    def line(self, text):
        return json.dumps({"type": "agent_response", "agent_response_event": {"agent_response": text}})

    def tool(self, name, arguments):
        return json.dumps({"type": "client_tool_call", "client_tool_call": {
            "tool_name": name, "tool_call_id": "call_1", "parameters": arguments}})
