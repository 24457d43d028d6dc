import torch

from dcae_bench.measurement.instruments.ceiling import BUFFERS, Matmul


def test_product_is_a_product_of_rotating_random_operands():
    work = Matmul(torch.float32, "cpu", size=8)
    assert work.flops == 2 * 8**3
    outputs = [work() for _ in range(BUFFERS + 1)]
    assert torch.equal(outputs[0], outputs[BUFFERS])
    assert not torch.equal(outputs[0], outputs[1]) and outputs[0].abs().min() > 0
    assert torch.equal(Matmul(torch.float32, "cpu", size=8)(), outputs[0])
