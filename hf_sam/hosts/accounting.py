"""What was really computed and really seen: the host's counts, where a pair of ranks sees one shard."""

from typing import Any


class AccountingMixin:
    """The part of [`SAMTrainerMixin`] that counts examples, tokens and floating point operations, and logs."""

    def get_total_train_batch_size(self, args: Any) -> int:
        total = super().get_total_train_batch_size(args)
        return total // 2 if self._pairs else total

    def _host_floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Of one gradient."""
        return super().floating_point_ops(inputs)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return round(self._host_floating_point_ops(inputs) * self.sam_method.gradients_per_update)

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        before = self.state.num_input_tokens_seen
        super()._track_num_input_tokens(inputs)
        if self._pairs:
            self.state.num_input_tokens_seen = before + (self.state.num_input_tokens_seen - before) // 2

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds what the method saw since the last log, as means over updates and ranks, beside the training loss."""
        # All ranks come here together when the control says so; a user's own `log` may come from one rank.
        if self._observations and "loss" in logs and self.control.should_log:
            self._passes.tell_partner()
            logs |= self._observations.drain(self.args.device, self.args.world_size)
        super().log(logs, *args, **kwargs)
