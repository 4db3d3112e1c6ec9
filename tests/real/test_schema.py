"""The API's own description against the live server: made-up requests, right and wrong, answered as it says."""

import json
import os
import subprocess
import sys

from api import Api
from gateway import API_KEY

# What is held against every answer. Wrong keys are tried elsewhere: their number is limited for each address.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance," \
         "response_schema_conformance,negative_data_rejection,positive_data_acceptance,unsupported_method"


def test_the_description_names_every_operation(desk):
    reply = Api(desk, API_KEY).ask("GET", "/openapi.json", key="")
    assert reply.status == 200
    description = reply.json
    names = {op["operationId"] for path in description["paths"].values() for op in path.values() if "operationId" in op}
    assert names >= {
        "getWhatsAppCallingConfig", "getWhatsAppCalling", "enableWhatsAppCalling", "updateWhatsAppCalling", "disableWhatsAppCalling",
        "enableWhatsAppCallingLegacy", "updateWhatsAppCallingLegacy", "disableWhatsAppCallingLegacy", "getWhatsAppCallPermissions",
        "initiateWhatsAppCall", "listWhatsAppCalls", "getWhatsAppCall", "getWhatsAppCallRecording", "getWhatsAppCallEstimate",
        "startWhatsAppCallerIdVerification", "verifyWhatsAppCallerId", "listCalls", "getCall", "getCallRecording", "getCallsUsage",
        "endVoiceCall", "transferVoiceCall"}
    print(f"OpenAPI {description['openapi']}, {len(names)} operations")


# A request that is right may come at the wrong time (409, 422, 429), and Meta, the PBX or an application may be away (502,
# 503); 400 is for what the description does not allow, 500 for our own mistakes.
SETTINGS = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 502, 503]
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 422, 429, 502, 503]
"""


def test_made_up_requests_are_answered_as_described(another_desk, tmp_path):
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    command = [sys.executable, "-m", "schemathesis.cli", "run", another_desk.url + "/openapi.json", "--mode", "all",
               "--max-examples", "4", "--max-time", "25", "--phases", "examples,coverage,fuzzing", "--checks", CHECKS, "--seed", "4", "--no-shrink",
               "--request-timeout", "5", "--exclude-path", "/v1/events", "--exclude-path-regex", "^/2010-04-01",
               "-H", f"Authorization: Bearer {API_KEY}", "--continue-on-failure", "--warnings", "off", "--suppress-health-check", "all"]
    done = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
                          env=os.environ | {"NO_COLOR": "1", "COLUMNS": "160"})
    said = done.stdout.decode(errors="replace")
    print("\n".join(line for line in said.splitlines() if "test cases" in line.lower() or "passed" in line.lower() or "generated" in line.lower()))
    assert done.returncode == 0, said[-20000:]
    assert another_desk.get("/healthz")[0] == 200 and not another_desk.complaints()
    json.loads(another_desk.get("/openapi.json")[1])
