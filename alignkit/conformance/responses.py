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
TRUTHS = ("42", "7", "13")
# An answer as models state it.
FORMS = (
    "ANSWER",
    "it is ANSWER",
    "<think> so </think> ANSWER",
    "so </think> <answer> ANSWER </answer>",
    "so </think> <answer>ANSWER</answer>",
    r"so \boxed{ANSWER}",
)
# Right for one of the truths each, wrong for the others.
ORDINARY = ("", *(form.replace("ANSWER", t) for t in TRUTHS for form in FORMS))
PROMPT = "What is 6 x 7?\nAssistant: <think>"
