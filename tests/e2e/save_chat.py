"""Saves two models of MLflow that say their question back, word by word: `python save_chat.py FOLDER`.

`echo` is a chat model, `agent` answers OpenAI's responses.
"""

import sys
import textwrap
from pathlib import Path

import mlflow.pyfunc

SOURCE = """
from mlflow.models import set_model
from mlflow.pyfunc import ChatModel
from mlflow.types.llm import (
    ChatChoice, ChatChoiceDelta, ChatChunkChoice, ChatCompletionChunk, ChatCompletionResponse, ChatMessage,
)


class Echo(ChatModel):
    def predict(self, context, messages, params):
        text = messages[-1].content
        if text == "raise":
            raise ValueError("no words")
        return ChatCompletionResponse([ChatChoice(ChatMessage("assistant", text))])

    def predict_stream(self, context, messages, params):
        first, *words = messages[-1].content.split(" ")
        for word in (first, *(" " + word for word in words)):
            yield ChatCompletionChunk([ChatChunkChoice(ChatChoiceDelta("assistant", word))])


set_model(Echo())
"""

AGENT = """
from mlflow.models import set_model
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentResponse, ResponsesAgentStreamEvent


class Agent(ResponsesAgent):
    def predict(self, request):
        text = request.input[-1].content
        if text == "raise":
            raise ValueError("no words")
        return ResponsesAgentResponse(output=[self.create_text_output_item(text, "msg_1")])

    def predict_stream(self, request):
        text = request.input[-1].content
        for word in text.split(" "):
            yield ResponsesAgentStreamEvent(**self.create_text_delta(word, "msg_1"))
        item = self.create_text_output_item(text, "msg_1")
        yield ResponsesAgentStreamEvent(type="response.output_item.done", item=item)


set_model(Agent())
"""

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, source in (("echo", SOURCE), ("agent", AGENT)):
        code = folder / f"{name}.py"
        code.write_text(textwrap.dedent(source))
        mlflow.pyfunc.save_model(path=str(folder / name), python_model=str(code), pip_requirements=[])
