"""What is refused by one endpoint alone, and what to use in the place of a refused parameter."""

__all__ = ["INSTEAD", "OF_CHATS", "OF_COMPLETIONS"]

OF_COMPLETIONS: dict[str, tuple[object, ...]] = {"echo": (False,)}
"""What only completions have, with the values that have no effect."""

OF_CHATS: dict[str, tuple[object, ...]] = {
    "chat_template_kwargs": ({},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
}
"""What only chats have."""

INSTEAD: dict[str, str] = {
    "allowed_token_ids": "logit_bias of -100 keeps a token away",
    "bad_words": "logit_bias of -100 keeps a token away",
    "best_of": "n gives several answers to choose from",
    "echo": "/v1/completions has it",
    "function_call": "tool_choice is its name now",
    "functions": "tools is their name now",
    "grammar": "structured_outputs has it",
    "guided_choice": "structured_outputs has it",
    "guided_grammar": "structured_outputs has it",
    "guided_json": "structured_outputs has it",
    "guided_regex": "structured_outputs has it",
    "include_stop_str_in_output": "stop_token_ids and skip_special_tokens shape the end",
    "json_schema": "response_format has it",
    "length_penalty": "it belongs to beam search; presence_penalty and min_tokens are near it",
    "logprob_token_ids": "top_logprobs names the most likely ones",
    "no_repeat_ngram_size": "dry_multiplier is near it",
    "prompt_embeds": "give text or token ids",
    "repeat_penalty": "repetition_penalty is its name here",
    "early_stopping": "it belongs to beam search",
    "repetition_detection": "dry_multiplier is near it",
    "return_prompt_text": "/v1/completions has echo",
    "return_token_offsets": "pd.tokens reports each token with its text",
    "return_tokens_as_token_ids": "pd.tokens reports ids",
    "tfs": "min_p is near it",
    "tfs_z": "min_p is near it",
    "tools": "/v1/chat/completions has it",
    "top_a": "min_p is near it",
    "top_logprobs": "here it is logprobs: N",
    "truncate_prompt_tokens": "shorten the prompt; /tokenize counts it",
    "truncation_side": "shorten the prompt; /tokenize counts it",
    "typical_p": "min_p or top_p are near it",
    "use_beam_search": "n gives several answers to choose from",
}
"""What to use instead, where there is something."""
