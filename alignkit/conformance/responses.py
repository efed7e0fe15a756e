"""Responses that every reward and eval must bear, hostile and ordinary ones."""

# What a model may write: each must get a score within the deadline, whatever the score.
HOSTILE = (
    "",
    "\x00",
    "\ud800 \u202e \x1b[31m",
    "</think> <answer>" + "9" * 5000 + "</answer>",
    "</think> <answer>9**9**9**9</answer>",
    "</think> <answer>9^{9^{9^9}}</answer>",
    "</think> <answer>(10!)!</answer>",
    r"\boxed{" * 3000,
    r"\boxed{\frac{1}{\frac{1}{\frac{1}{2}}}}",
    "{" * 10_000,
    r"\text{" * 5000,
    r"</think> <answer>\input{/etc/passwd}</answer>",
    "</think> <answer>__import__('os').getcwd()</answer>",
    "</think> <answer>١٢٣ ½ ∞ −5</answer>",
    "</think> <answer>1e999999</answer>",
    "word " * 20_000,
)
ORDINARY = (
    "it is 42",
    "<think> so </think> 42",
    "so </think> <answer> 42 </answer>",
    r"so \boxed{42}",
    "so </think> <answer>41</answer>",
    "",
)
PROMPT = "What is 6 x 7?\nAssistant: <think>"
