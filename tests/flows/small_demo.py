"""The demo at its smallest: every stage does real work, and nothing is learned."""

SMALL = [
    "world.num_videos=22",
    "world.num_questions=60",
    "world.num_benchmark_questions=30",
    "world.num_validation_questions=8",
    "fetch.min_usable_share=0.5",
    "train.prompts_per_device=4",
    "train.0.max_steps=3",
    "train.0.save_steps=3",
    "train.1.max_steps=4",
    "train.1.save_steps=2",
    "train.dataloader_workers=0",
    "evaluate.parity_questions=2",
    "evaluate.workers=0",
    "expect.start_at_most=null",
    "expect.last_at_least=null",
]
