"""What steering has to beat: system prompts, few-shot prompting and finetuning, alone and together with a vector."""

from caa_lens.protocols.baselines.comparison import applicable as applicable
from caa_lens.protocols.baselines.comparison import compare as compare
from caa_lens.protocols.baselines.comparison import describe_baselines as describe_baselines
from caa_lens.protocols.baselines.finetuning import finetune as finetune
from caa_lens.protocols.baselines.prompting import few_shot as few_shot
from caa_lens.protocols.baselines.prompting import system_prompts as system_prompts
