"""Pushing to the Hub, and the model card that goes with it."""

from .push import HubMixin, SecretToken


__all__ = ["HubMixin", "SecretToken"]
