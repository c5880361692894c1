"""The cells of the campaigns: quality at equal budget, optimisers, uptraining."""

from dataclasses import dataclass, replace

from pd_core.models.config import ModelConfig
from pd_core.models.latent_shape import LatentShape
from pd_training.campaign.campaign import Cell, Uptrained
from pd_training.recipe.settings import OptimiserSettings, RunSettings

__all__ = ["CAMPAIGNS", "SCALES", "VARIANTS", "Scale", "campaign_cells"]

VARIANTS = ("mha", "skipv1", "skipv1-yoco", "gqa", "gqa-skipv1", "mla", "skipv1-mla")
CAMPAIGNS = ("quality", "optimisers", "uptraining")
SEEDS = (0, 1, 2)
_UBA_PHI = 1.0  # fixed before the first run: between the cosine (2) and a constant rate (0)
_RATES = {"adamw": (1e-3, 2e-3, 4e-3), "conda": (5e-3, 1e-2, 2e-2)}
_DOSE = 0.15  # share of the original tokens (arXiv 2510.16807)
# Uptraining's peak rate over pretraining's last rate: the paper's 1.5, and a much higher one.
_UPTRAINING_RATES = {"": 1.5, "-fast": 6.0}


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of models and runs.

    Attributes:
        latent: the rank of MLA's latent, a quarter of the width.
        tokens: tokens of a run from scratch.
        batch: sequences per step.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inter: int
    latent: int
    context: int
    batch: int
    tokens: int

    def settings(self, lr: float, seed: int, share: float = 1.0) -> RunSettings:
        """Return the settings of a run: AdamW, cosine, a share of the tokens, 20 evaluations."""
        steps = round(self.tokens * share / (self.batch * self.context))
        return RunSettings(
            steps=steps,
            batch_sequences=self.batch,
            context_tokens=self.context,
            dtype="bfloat16",
            seed=seed,
            checkpoint_every=200,
            evaluate_every=max(1, steps // 20),
            evaluate_tokens=32768,
            optimiser=OptimiserSettings(lr=lr),
        )


SCALES = {
    "2m": Scale(128, 8, 8, 4, 344, 32, 256, 16, 4_000_000),
    "15m": Scale(384, 8, 8, 4, 1024, 96, 512, 32, 60_000_000),
}


def campaign_cells(name: str, scale: Scale, vocab_size: int, lr: float) -> list[Cell]:
    """Return the cells of one of CAMPAIGNS.

    Args:
        name: the campaign; "uptraining" continues from finished cells of "quality".
        lr: AdamW's peak rate, chosen on the plain model; "optimisers" has its own.
    """
    if name == "quality":
        return _quality(scale, vocab_size, lr)
    if name == "optimisers":
        return _optimisers(scale, vocab_size)
    return _uptraining(scale, lr)


def variant_config(variant: str, scale: Scale, vocab_size: int) -> ModelConfig:
    """Return a variant's shape; depth, width, heads and MLP are the same in all."""
    plain = ModelConfig(
        vocab_size=vocab_size,
        hidden_size=scale.hidden,
        intermediate_size=scale.inter,
        num_layers=scale.layers,
        num_heads=scale.heads,
        num_kv_heads=scale.heads,
        head_dim=scale.hidden // scale.heads,
        max_context_tokens=scale.context,
        tie_word_embeddings=True,
    )
    dim = plain.head_dim
    latent = replace(
        plain,
        family="deepseek_v2",
        head_dim=dim // 2,  # the rotated part, half of the unrotated one as in DeepSeek-V2
        latent=LatentShape(kv_rank=scale.latent, nope_dim=dim, value_dim=dim),
    )
    return {
        "mha": plain,
        "skipv1": replace(plain, skip_v1=True),
        "skipv1-yoco": replace(plain, skip_v1=True, skip_v1_k_source=scale.layers // 2 - 1),
        "gqa": replace(plain, num_kv_heads=scale.kv_heads),
        "gqa-skipv1": replace(plain, num_kv_heads=scale.kv_heads, skip_v1=True),
        "mla": latent,
        "skipv1-mla": replace(latent, skip_v1=True),
    }[variant]


def _quality(scale: Scale, vocab_size: int, lr: float) -> list[Cell]:
    """Every variant with every seed; seed by seed, so that pairs are complete early."""
    return [
        Cell(
            f"{variant}-seed{seed}",
            variant,
            seed,
            scale.settings(lr, seed),
            variant_config(variant, scale, vocab_size),
        )
        for seed in SEEDS
        for variant in VARIANTS
    ]


def _optimisers(scale: Scale, vocab_size: int) -> list[Cell]:
    """Optimiser x schedule x rate on the plain model, half the tokens."""
    cells = []
    for optimiser, rates in _RATES.items():
        for schedule in ("cosine", "uba"):
            for lr in rates:
                settings = scale.settings(lr, seed=0, share=0.5)
                betas = (0.9, 0.99 if optimiser == "conda" else 0.95)
                settings = replace(
                    settings,
                    schedule=schedule,
                    phi=_UBA_PHI if schedule == "uba" else 2.0,
                    optimiser=OptimiserSettings(name=optimiser, lr=lr, betas=betas),
                )
                cells.append(
                    Cell(
                        f"{optimiser}-{schedule}-{lr:g}",
                        f"{optimiser}-{schedule}",
                        0,
                        settings,
                        variant_config("mha", scale, vocab_size),
                    )
                )
    return cells


def _uptraining(scale: Scale, lr: float) -> list[Cell]:
    """The plain model trained further unchanged, and converted in every way."""
    ways = {
        "mha-on": (None, False),
        "mean": ("mean", False),
        "adjacent": ("adjacent", False),
        "first": ("first", False),
        "top": ("top", False),
        "random": ("random", False),
        "mean-fitted": ("mean", True),
    }
    cells = []
    for seed in SEEDS:
        for suffix, factor in _UPTRAINING_RATES.items():
            base = scale.settings(lr, seed, share=_DOSE)
            rate = factor * lr * base.floor
            settings = replace(
                base,
                seed=seed + len(SEEDS),  # a different data order from the first training's
                warmup=0.05,
                evaluate_every=max(1, base.steps // 3),
                evaluate_tokens=2**40,  # all of the held-out side
                optimiser=OptimiserSettings(lr=rate),
            )
            for way, (init, fit) in ways.items():
                start = Uptrained(f"mha-seed{seed}", init, fit)
                cells.append(
                    Cell(f"{way}{suffix}-seed{seed}", f"{way}{suffix}", seed, settings, start)
                )
    return cells
