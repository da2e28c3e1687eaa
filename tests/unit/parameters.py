"""What handlers of a binding's tests take: a context, a resource, and payloads of several makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field


class JobContext:
    __jobd_context__ = True


class Mailer:
    """Stands for a resource: nothing that JSON could become."""


@dataclass
class Server:
    """A dataclass may be a payload or a resource."""

    host: str
    port: int = 25


class Image(BaseModel):
    key: str
    width: int = Field(default=100, gt=0)


class Cat(BaseModel):
    type: Literal["cat"]
    lives: int


class Dog(BaseModel):
    type: Literal["dog"]
    name: str


CONTEXT = JobContext()
