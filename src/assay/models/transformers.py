"""Language models and text encoders of the library transformers: `transformers:gpt2`.

Source: Wolf et al., Transformers: state-of-the-art natural language processing (2020).
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from assay.data import hub_files
from assay.nn.user_modules import feature_length, find_blocks, user_error
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError, one_line

INPUTS = ("text",)
FILES = ("*.json", "*.safetensors")
CHECKED_TOKENS = 8
LIBRARY_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError,
                  ImportError, AssertionError)  # fmt: skip


class TextNetwork(nn.Module):
    """Tokens (n, t) -> features (n, t, `features`).

    Attributes:
        features: length of a token's feature vector.
        context_length: maximum number of tokens in a sequence.
        blocks: the transformer layers, from input to output.
        VOCABULARY_WEIGHTS: names of the weights that have a row for each token.
    """

    def __init__(
        self, network: nn.Module, info: DataInfo, context_length: int | None, name: str
    ) -> None:
        super().__init__()
        self.network = network
        self.padding = info.padding
        self.is_causal = network.get_output_embeddings() is not None
        self.context_length = _context_length(network, context_length, self.padding, name)
        self.VOCABULARY_WEIGHTS = _vocabulary_weights(network)
        self.features = feature_length(self, info, name)

    def forward(self, tokens: Tensor) -> Tensor:
        # A causal network does not attend to padding, which comes last; an encoder needs a mask. Of
        # an empty text it attends to one token, because attention to none is NaN.
        mask = None
        if not self.is_causal and self.padding is not None:
            mask = (tokens != self.padding).long()
            mask[:, 0] = 1
        inner = self.network.base_model if self.is_causal else self.network
        options = {"use_cache": False} if self.is_causal else {}
        return inner(input_ids=tokens, attention_mask=mask, **options).last_hidden_state

    @property
    def blocks(self) -> list[nn.Module]:
        return find_blocks(self.network)

    def __getattr__(self, name: str) -> Any:
        if name == "logits" and self.is_causal:  # encoders have none, and objectives check for it
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
    """Build a network of transformers, by default its default configuration with random weights.

    Pretrained weights are only meaningful with the tokenizer of their training: choose the
    tokenizer `transformers` with the same folder.

    Args:
        info: of the data set and its tokenizer.
        target: a model type of transformers (`gpt2`, `bert`), or with `pretrained` a repository of
            the Hugging Face hub (`openai-community/gpt2`).
        pretrained: whether to download configuration and weights from the hub.
        revision: commit of the hub's repository; required with `pretrained`.
        weights: a folder written by `save_pretrained` instead.
        configuration: configuration of a network with random weights: a JSON file, or a folder with
            `config.json`.
        arguments: changes to the configuration, such as `{n_layer: 2, n_head: 2, n_embd: 64}`.
        context_length: maximum number of tokens in a sequence; by default the network's maximum.
        attention: implementation of attention; by default `sdpa` if the network supports it.

    Raises:
        JobError: transformers is not installed, a file is missing, or the network does not fit the
            data.
    """
    name = f"transformers:{target}"
    if not info.is_text:
        raise user_error(name, "needs text, but the data set holds images")
    if sum(map(bool, (pretrained, weights, configuration))) > 1:
        raise user_error(
            name, "pretrained, weights and configuration exclude each other: choose one"
        )
    _import_transformers(name)
    if pretrained:
        weights = hub_files.fetch(name, target, revision, FILES)
    config = _configuration(name, weights or configuration, target, arguments or {})
    network = _network(name, config, weights, info, attention)
    if info.vocab_size > network.get_input_embeddings().num_embeddings:
        network.resize_token_embeddings(info.vocab_size, mean_resizing=False)
    backbone = TextNetwork(network, info, context_length, name)
    if backbone.is_causal:
        _check_causal(backbone, info.vocab_size, name)
    return backbone


def _import_transformers(name: str) -> None:
    try:
        import transformers
    except ImportError as error:
        what = f"{name}: needs the package transformers ({error}): run `make extras`"
        raise JobError(what, ExitCode.CODE) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _configuration(name: str, path: Path | None, target: str, arguments: dict[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING, AutoConfig

    if path is None and target not in CONFIG_MAPPING:
        what = f"{target} is not a model type of transformers"
        raise user_error(name, f"{what}: set `pretrained: true`, `weights` or `configuration`")
    load, source = (
        (AutoConfig.from_pretrained, str(path)) if path else (AutoConfig.for_model, target)
    )
    try:
        config = load(source)
        unknown = [key for key in arguments if not hasattr(config, key)]
        if arguments and not unknown:
            config = load(source, **arguments)
    except LIBRARY_ERRORS as error:
        what = f"{name}: {path or 'these arguments'}: not a valid configuration: {one_line(error)}"
        raise JobError(what, ExitCode.DATA) from error
    if target in CONFIG_MAPPING and config.model_type != target:
        what = f"{path} holds a network of type {config.model_type}"
        raise user_error(name, f"{what}: write transformers:{config.model_type}")
    if unknown:
        known = ", ".join(sorted(key for key in config.to_dict() if not key.startswith("_")))
        raise user_error(name, f"its configuration has no {unknown[0]}; it has {known}")
    return config


def _network(
    name: str, config: Any, weights: Path | None, info: DataInfo, attention: str | None
) -> nn.Module:
    """Create a network, with the weights of a folder or with random ones, in training mode."""
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.models.auto import modeling_auto

    if config.is_encoder_decoder:
        raise user_error(name, "is an encoder-decoder model, which is not supported")
    config.use_cache = False
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    is_causal = config.model_type in causal and config.model_type not in masked
    if not is_causal and info.is_stream:
        raise user_error(name, "is an encoder, which cannot predict the next token")
    auto_class = AutoModelForCausalLM if is_causal else AutoModel
    options = {"attn_implementation": attention, "dtype": torch.float32}
    try:
        if weights is None:
            config.vocab_size = info.vocab_size
            config.pad_token_id = info.padding
            config.bos_token_id = config.eos_token_id = info.end_of_text
            network = auto_class.from_config(config, **options)
        else:
            network, loading = auto_class.from_pretrained(
                str(weights), config=config, output_loading_info=True, **options
            )
            _check_loaded(name, weights, loading)
    except LIBRARY_ERRORS as error:
        raise user_error(name, f"cannot be built: {one_line(error)}") from error
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # its output is not used
    return network.train()


def _check_loaded(name: str, weights: Path, loading: dict[str, Any]) -> None:
    """Check that the folder holds every weight except a pooler's; it may hold others."""
    missing = sorted(each for each in loading["missing_keys"] if "pooler" not in each)
    if missing or loading["mismatched_keys"]:
        wrong = ", ".join([*missing, *map(str, sorted(loading["mismatched_keys"]))])[:300]
        raise JobError(f"{name}: {weights} does not hold its weights: {wrong}", ExitCode.DATA)


def _context_length(
    network: nn.Module, requested: int | None, padding: int | None, name: str
) -> int:
    """Return the requested maximum sequence length, or the network's."""
    limit = getattr(network.config, "max_position_embeddings", None)
    for path, module in network.named_modules():
        padding_index = getattr(module, "padding_idx", None)
        if path.endswith("position_embeddings") and padding_index is not None:
            # RoBERTa numbers positions from its padding id + 1.
            limit = module.num_embeddings - padding_index - 1
            if padding != padding_index:
                what = f"needs padding id {padding_index}, but the tokenizer has {padding}"
                raise user_error(name, f"{what}: use the tokenizer of its training")
    if requested is None and limit is None:
        raise user_error(name, "has no maximum sequence length: set `context_length`")
    if requested is not None and not 0 < requested <= (limit or requested):
        raise user_error(name, f"context_length: {requested} is not from 1 to {limit}, its maximum")
    return requested or limit


def _vocabulary_weights(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the weights of the input and output embeddings."""
    layers = [network.get_input_embeddings(), network.get_output_embeddings()]
    weights = {id(weight) for layer in layers if layer for weight in layer.parameters()}
    named = network.named_parameters(remove_duplicate=False)
    return tuple(f"network.{name}" for name, weight in named if id(weight) in weights)


def _check_causal(backbone: TextNetwork, vocab_size: int, name: str) -> None:
    """Check that a language model is causal and that its logits are one layer on its features.

    Raises:
        JobError: it is not.
    """
    tokens = torch.arange(min(CHECKED_TOKENS, backbone.context_length))[None] % vocab_size
    changed = tokens.clone()
    changed[0, -1] = (changed[0, -1] + 1) % vocab_size
    was_training = backbone.training
    with torch.no_grad():
        features, other = backbone.eval()(tokens), backbone(changed)
        expected = backbone.network(input_ids=tokens).logits
        agree = torch.allclose(backbone.logits(features), expected, rtol=1e-3, atol=1e-3)
    backbone.train(was_training)
    if not torch.allclose(features[:, :-1], other[:, :-1], rtol=1e-3, atol=1e-4):
        raise user_error(name, "is not causal: its features depend on later tokens")
    if not agree:
        raise user_error(name, "computes its logits with more than one layer: not supported")
