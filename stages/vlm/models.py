"""Short names for vision-language models that people use here -> hub id."""

SHORT_NAMES = {
    "qwen2-vl": "Qwen/Qwen2-VL-7B-Instruct",
    "qwen2-vl-72b-awq": "Qwen/Qwen2-VL-72B-Instruct-AWQ",
    "qwen2.5-vl": "Qwen/Qwen2.5-VL-7B-Instruct",
    "qwen3-vl": "Qwen/Qwen3-VL-8B-Instruct",
    "llama-3.2-vision": "meta-llama/Llama-3.2-11B-Vision-Instruct",
    "llava-1.5-7b": "llava-hf/llava-1.5-7b-hf",
    "llava-1.5-13b": "llava-hf/llava-1.5-13b-hf",
}
