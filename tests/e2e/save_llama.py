"""Saves a language model with random weights: `python save_llama.py FOLDER`.

Run by the Python of vLLM's environment. As small as vLLM's CPU build takes: heads of 64, and a tokenizer
trained on this very file.
"""

import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 400
CHAT = "{% for message in messages %}{{ message.content }} {% endfor %}"

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
tokenizer.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(
    vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet
)
tokenizer.train([__file__], trainer)
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
fast.chat_template = CHAT
fast.save_pretrained(sys.argv[1])
config = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=0,
    eos_token_id=1,
)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
