"""What every part of a document is: checked field by field, and never changed."""

from pydantic import BaseModel, ConfigDict

__all__ = ["DocumentPart"]


class DocumentPart(BaseModel):
    """Knows all of its fields, and holds no number that JSON cannot."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
