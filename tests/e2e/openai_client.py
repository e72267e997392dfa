"""OpenAI's own client, unchanged, against the platform: `python openai_client.py HOST:PORT ENDPOINT [WORDS]`.

Run by the Python of an environment that has it. Prints one JSON line.
"""

import json
import sys

import openai

ADDRESS, ENDPOINT = sys.argv[1:3]
WORDS = sys.argv[3] if len(sys.argv) > 3 else "import"
ASKED = {"model": ENDPOINT, "messages": [{"role": "user", "content": WORDS}], "max_tokens": 8}


def told(base_url):
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
    whole = client.chat.completions.create(**ASKED, temperature=0)
    parts = client.chat.completions.create(**ASKED, temperature=0, stream=True)
    streamed = [part.choices[0].delta.content or "" for part in parts if part.choices]
    try:
        client.chat.completions.create(**{**ASKED, "model": "nobody"})
        wrong = "allowed"
    except openai.NotFoundError as error:
        wrong = str(error)
    return {
        "same": "".join(streamed) == whole.choices[0].message.content,
        "parts": len(streamed),
        "wrong": wrong,
        "models": [model.id for model in client.models.list()] if base_url.endswith("/v1") else None,
    }


bases = (f"http://{ADDRESS}/serving-endpoints", f"http://{ADDRESS}/serving-endpoints/{ENDPOINT}/v1")
sys.stdout.write(json.dumps([told(base) for base in bases]) + "\n")
