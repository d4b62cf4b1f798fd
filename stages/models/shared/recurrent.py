"""An LSTM as one ONNX node for each of its layers."""

from __future__ import annotations

import torch


class Recurrent(torch.nn.Module):
    """An LSTM that stays one node of a graph for each layer; the exporter would unroll it, for one length."""

    def __init__(self, lstm: torch.nn.LSTM) -> None:
        """Share `lstm`, which takes batches first, and keep its weights as an ONNX node takes them."""
        super().__init__()
        self.lstm, self.directions = lstm, 2 if lstm.bidirectional else 1
        for layer in range(lstm.num_layers):
            inner, outer, *biases = (
                self._gates(name, layer) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            self.register_buffer(f"inputs{layer}", inner)
            self.register_buffer(f"states{layer}", outer)
            self.register_buffer(f"biases{layer}", torch.cat(biases, dim=1))

    def _gates(self, name: str, layer: int) -> torch.Tensor:
        """Return all directions' (directions, 4 * hidden_size, ...), gates as ONNX orders them: i, o, f, g."""
        suffixes = ("", "_reverse")[: self.directions]
        parts = [getattr(self.lstm, f"{name}_l{layer}{suffix}").detach().chunk(4) for suffix in suffixes]
        return torch.stack([torch.cat([i, o, f, g]) for i, f, g, o in parts])

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Run the LSTM over (batch, time, size): (batch, time, directions * hidden_size).

        lengths: int32 (batch,), after which a row is padding, which is not run over in either direction.
        """
        if not torch.compiler.is_exporting():
            return self._run(inputs, lengths)
        known = () if lengths is None else (lengths,)
        hidden, size = inputs.transpose(0, 1), self.lstm.hidden_size
        for layer in range(self.lstm.num_layers):
            weights = (self.get_buffer(f"{name}{layer}") for name in ("inputs", "states", "biases"))
            by_time = torch.onnx.ops.symbolic(
                "LSTM",
                (hidden, *weights, *known),
                {"hidden_size": size, "direction": "bidirectional" if self.directions == 2 else "forward"},
                dtype=hidden.dtype,
                shape=(hidden.shape[0], self.directions, hidden.shape[1], size),
                version=18,
            )
            hidden = by_time.transpose(1, 2).flatten(2)
        return hidden.transpose(0, 1)

    def _run(self, inputs: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        outputs: torch.Tensor
        if lengths is None:
            outputs = self.lstm(inputs)[0]
            return outputs
        packed = torch.nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=inputs.shape[1]
        )
        return outputs
