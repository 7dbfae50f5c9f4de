"""Where the companies are that speak OpenAI's dialect: one row per name that may follow `provider:`."""

from __future__ import annotations

from typing import Final

import msgspec


class Provider(msgspec.Struct, frozen=True):
    origin: str
    base_path: str
    usual_key: str  # the environment variable their own documentation uses


PROVIDERS: Final = {
    "deepseek": Provider("https://api.deepseek.com", "/v1", "DEEPSEEK_API_KEY"),
    "fireworks": Provider("https://api.fireworks.ai", "/inference/v1", "FIREWORKS_API_KEY"),
    "groq": Provider("https://api.groq.com", "/openai/v1", "GROQ_API_KEY"),
    "mistral": Provider("https://api.mistral.ai", "/v1", "MISTRAL_API_KEY"),
    "openai": Provider("https://api.openai.com", "/v1", "OPENAI_API_KEY"),
    "openrouter": Provider("https://openrouter.ai", "/api/v1", "OPENROUTER_API_KEY"),
    "together": Provider("https://api.together.xyz", "/v1", "TOGETHER_API_KEY"),
    "xai": Provider("https://api.x.ai", "/v1", "XAI_API_KEY"),
}
