"""The engine that runs on vLLM. Its modules import vllm only while an engine is built or runs."""
