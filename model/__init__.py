"""Prompts, rewards, training and inference of Qwen2-Audio."""
