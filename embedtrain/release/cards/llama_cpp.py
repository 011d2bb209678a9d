"""What the card of a model folder says of the GGUF file in it."""

from embedtrain.contract.texts import Contract
from embedtrain.release.cards.markdown import fenced
from embedtrain.release.cards.results import replace_section

HEADING = "## llama.cpp"
SCRIPT = """from llama_cpp import Llama

model = Llama("{file}", embedding=True, n_ctx={length}, n_batch={length}, n_ubatch={length})
vectors = model.embed([QUERY_PROMPT + query for query in ["your query"]], normalize={normalize})"""
SERVER = "llama-server --model {file} --embeddings --ctx-size {length} --batch-size {length} --ubatch-size {length} --parallel 1"
TEXT = """Of {length} tokens; the server refuses longer texts, llama-cpp-python cuts them and loses their last token. Prompts are yours to put before texts: `{query}` before
queries, `{document}` before documents. Ids of tokens, and with them vectors, may differ for texts that hold special
tokens as words, for words of more than 100 letters, and for some scripts. `embedtrain verify` says for which."""


def card_with_gguf(card: str, contract: Contract, file: str) -> str:
    """Return a card that says, at its end, how to run the GGUF file of its folder."""
    length = max(contract.query_length, contract.document_length)
    script = SCRIPT.format(file=file, length=length, normalize=contract.similarity == "cosine")
    script = script.replace("QUERY_PROMPT", repr(contract.query_prompt))
    prompts = {"query": contract.query_prompt, "document": contract.document_prompt}
    server = SERVER.format(file=file, length=length)
    text = f"{fenced(script, 'python')}\n\n{fenced(server, 'bash')}\n\n{TEXT.format(length=length, **prompts)}"
    if not any(prompts.values()):
        text = text.replace(
            "Prompts are yours to put before texts: `` before\nqueries, `` before documents. ", ""
        ).replace("'' + query", "query")
    return f"{replace_section(card, HEADING, '').rstrip()}\n\n{HEADING}\n\n{text}\n"
