"""Language models and text encoders of the library transformers: `transformers:gpt2`.

Wolf et al., Transformers: state-of-the-art natural language processing (2020).
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from assay.data import hub_files
from assay.nn import user_modules
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INPUTS = ("text",)
FILES = ("*.json", "*.safetensors")
TRIAL = 8  # tokens on which a network is tried
FAULTS = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, ImportError,
          AssertionError)  # fmt: skip


class TextNetwork(nn.Module):
    """Tokens (n, t) -> features (n, t, `features`).

    Attributes:
        features: length of a token's feature vector.
        context_length: the longest sequence.
        blocks: the layers, from input to output.
        VOCABULARY_WEIGHTS: names of the parameters that have a row for each token.
    """

    def __init__(
        self, network: nn.Module, info: DataInfo, context_length: int | None, name: str
    ) -> None:
        super().__init__()
        self.network = network
        self.padding = info.padding
        self.is_causal = network.get_output_embeddings() is not None
        self.context_length = _context(network, context_length, self.padding, name)
        self.VOCABULARY_WEIGHTS = _vocabulary_weights(network)
        self.features = user_modules.feature_length(self, info, name)

    def forward(self, tokens: Tensor) -> Tensor:
        # A causal network does not see the padding, which comes last. Another one has to be told;
        # of a text that is empty it sees one token, for of none there is no mean.
        mask = None
        if not self.is_causal and self.padding is not None:
            mask = (tokens != self.padding).long()
            mask[:, 0] = 1
        inner = self.network.base_model if self.is_causal else self.network
        options = {"use_cache": False} if self.is_causal else {}
        return inner(input_ids=tokens, attention_mask=mask, **options).last_hidden_state

    @property
    def blocks(self) -> list[nn.Module]:
        return user_modules.find_blocks(self.network)

    def __getattr__(self, name: str) -> Any:
        if name == "logits" and self.is_causal:  # an encoder has none, and objectives ask for it
            return super().__getattr__("network").get_output_embeddings().forward
        return super().__getattr__(name)


def build(
    info: DataInfo,
    target: str,
    *,
    pretrained: bool = False,
    revision: str | None = None,
    weights: Path | None = None,
    configuration: Path | None = None,
    arguments: dict | None = None,
    context_length: int | None = None,
    attention: Literal["sdpa", "eager"] | None = None,
) -> nn.Module:
    """Build a network of transformers; without weights or configuration, its default one.

    Pretrained weights mean something to the tokens that they were trained on alone: choose the
    tokenizer `transformers` with the same folder.

    Args:
        info: what the data set states about itself.
        target: a kind of network that transformers knows (`gpt2`, `bert`), or with `pretrained` a
            repository of the hub (`openai-community/gpt2`).
        pretrained: whether to take configuration and weights from the hub.
        revision: the commit of the hub's repository; needed with `pretrained`.
        weights: a folder that `save_pretrained` has written instead.
        configuration: the configuration of a network with random weights: a JSON file, or a folder
            with `config.json`.
        arguments: changes to the configuration, such as `{n_layer: 2, n_head: 2, n_embd: 64}`.
        context_length: the longest sequence; as long as the network allows, if left out.
        attention: how transformers computes attention; `sdpa` where it can, if left out.

    Raises:
        JobError: transformers is missing, or a file, or the network does not fit the data.
    """
    name = f"transformers:{target}"
    if not info.is_text:
        raise user_modules.user_error(name, "takes text, and this data set holds images")
    if sum(map(bool, (pretrained, weights, configuration))) > 1:
        raise user_modules.user_error(
            name, "pretrained, weights and configuration exclude each other: give one"
        )
    _library(name)
    if pretrained:
        weights = hub_files.fetch(name, target, revision, FILES)
    config = _configuration(name, weights or configuration, target, arguments or {})
    network = _network(name, config, weights, info, attention)
    _fit_vocabulary(network, info)
    backbone = TextNetwork(network, info, context_length, name)
    _try(backbone, info, name)
    return backbone


def _library(name: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        what = f"{name}: needs the package transformers ({error}): run `make extras`"
        raise JobError(what, ExitCode.CODE) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _configuration(name: str, path: Path | None, target: str, arguments: dict[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING, AutoConfig

    if path is None and target not in CONFIG_MAPPING:
        raise user_modules.user_error(
            name,
            f"{target} is no kind of network that transformers knows: give `pretrained: true`, "
            "`weights` or `configuration`",
        )
    try:
        found = AutoConfig.from_pretrained(str(path)) if path else AutoConfig.for_model(target)
        if target in CONFIG_MAPPING and found.model_type != target:
            raise user_modules.user_error(
                name, f"{path} holds a network of kind {found.model_type}: name it so"
            )
        for key in arguments:
            if not hasattr(found, key):
                known = ", ".join(sorted(k for k in found.to_dict() if not k.startswith("_")))
                raise user_modules.user_error(
                    name, f"its configuration has no {key}; it has {known}"
                )
        if not arguments:
            return found
        if path:
            return AutoConfig.from_pretrained(str(path), **arguments)
        return AutoConfig.for_model(target, **arguments)
    except FAULTS as error:
        what = f"{name}: {path or 'these arguments'}: no valid configuration: {_line(error)}"
        raise JobError(what, ExitCode.DATA) from error


def _network(
    name: str, config: Any, weights: Path | None, info: DataInfo, attention: str
) -> nn.Module:
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.models.auto import modeling_auto

    if config.is_encoder_decoder:
        raise user_modules.user_error(
            name, "is made of an encoder and a decoder, which is not supported"
        )
    config.use_cache = False
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    is_causal = config.model_type in causal and config.model_type not in masked
    kind = AutoModelForCausalLM if is_causal else AutoModel
    if not is_causal and info.max_length is None:
        raise user_modules.user_error(
            name, "sees a whole text at once: it cannot tell the next token"
        )
    options = {"attn_implementation": attention, "dtype": torch.float32}
    try:
        if weights is None:
            config.vocab_size = info.vocab_size
            for key, value in (("pad", info.padding), ("eos", info.end_of_text)):
                setattr(config, f"{key}_token_id", value)
            config.bos_token_id = config.eos_token_id
            network = kind.from_config(config, **options)
        else:
            network, found = kind.from_pretrained(
                str(weights), config=config, output_loading_info=True, **options
            )
            _complete(name, weights, found)
    except FAULTS as error:
        raise user_modules.user_error(name, f"cannot be made: {_line(error)}") from error
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # what it gives is not used
    return network.train()


def _complete(name: str, weights: Path, found: dict[str, Any]) -> None:
    """Each weight must have come from the file, a pooler apart; what else it holds is dropped."""
    missing = sorted(each for each in found["missing_keys"] if "pooler" not in each)
    if missing or found["mismatched_keys"]:
        wrong = ", ".join([*missing, *map(str, sorted(found["mismatched_keys"]))])[:300]
        raise JobError(f"{name}: {weights} does not hold its weights: {wrong}", ExitCode.DATA)


def _fit_vocabulary(network: nn.Module, info: DataInfo) -> None:
    """Give tokens that the weights do not know rows of their own, at random."""
    if info.vocab_size > network.get_input_embeddings().num_embeddings:
        network.resize_token_embeddings(info.vocab_size, mean_resizing=False)


def _context(network: nn.Module, wanted: int | None, padding: int | None, name: str) -> int:
    longest = getattr(network.config, "max_position_embeddings", None)
    for path, module in network.named_modules():
        # RoBERTa counts positions from the id of the padding on.
        first = getattr(module, "padding_idx", None)
        if path.endswith("position_embeddings") and first is not None:
            longest = module.num_embeddings - first - 1
            if padding != first:
                what = f"needs {first} as the id of the padding, and the tokenizer has {padding}"
                raise user_modules.user_error(
                    name, f"{what}: use the tokenizer that it was trained with"
                )
    if wanted is None and longest is None:
        raise user_modules.user_error(
            name, "sets no limit on the length of a text: set `context_length`"
        )
    if wanted is not None and not 0 < wanted <= (longest or wanted):
        raise user_modules.user_error(
            name, f"context_length: {wanted} is not from 1 to {longest}, its longest text"
        )
    return wanted or longest


def _vocabulary_weights(network: nn.Module) -> tuple[str, ...]:
    """Names of the input and output embeddings, and of the latter's bias."""
    holders = [network.get_input_embeddings(), network.get_output_embeddings()]
    own_weights = {id(each) for holder in holders if holder for each in holder.parameters()}
    named = network.named_parameters(remove_duplicate=False)
    return tuple(f"network.{key}" for key, each in named if id(each) in own_weights)


def _try(backbone: TextNetwork, info: DataInfo, name: str) -> None:
    """Hold a language model against what `logits` and causality promise.

    Raises:
        JobError: it has more than a layer between features and logits, or sees what comes after a
            token.
    """
    if not backbone.is_causal:
        return
    tokens = torch.arange(min(TRIAL, backbone.context_length))[None] % info.vocab_size
    changed = tokens.clone()
    changed[0, -1] = (changed[0, -1] + 1) % info.vocab_size
    was_training = backbone.training
    with torch.no_grad():
        features, other = backbone.eval()(tokens), backbone(changed)
        expected = backbone.network(input_ids=tokens).logits
        agree = torch.allclose(backbone.logits(features), expected, rtol=1e-3, atol=1e-3)
    backbone.train(was_training)
    if not torch.allclose(features[:, :-1], other[:, :-1], rtol=1e-3, atol=1e-4):
        raise user_modules.user_error(
            name, "sees what comes after a token: it is no causal language model"
        )
    if not agree:
        raise user_modules.user_error(
            name, "does more to its logits than one layer, which is not supported"
        )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
