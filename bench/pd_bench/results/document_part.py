"""The base of every part of a document: checked field by field, and immutable."""

from pydantic import BaseModel, ConfigDict

__all__ = ["DocumentPart"]


class DocumentPart(BaseModel):
    """Allows no unknown field, and no number that JSON cannot hold."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
