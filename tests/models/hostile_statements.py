"""Statements and definitions of TorchScript that no network needs, with holes for names and values.

Holes: {x}, {y} variables in scope; {v} a new name; {i} an integer, mostly out of range; {n} a small integer;
{f} a float; {s} a string literal; {t} a type; {d} a number of a dtype, mostly of none; {self} and {cls} the
object and its class; {here} the package of the class.
"""

from __future__ import annotations

INTEGERS = (
    "-1", "0", "1", "2", "-2", "3", "7", "64", "255", "-9223372036854775807", "9223372036854775807",
    "torch.sub(-9223372036854775807, 1)", "-9223372036854775808", "2147483647", "2147483648", "-2147483648",
    "4294967296", "1099511627776", "1152921504606846976", "9223372036854775808", "99999999999999999999",
    "1" + "0" * 400, "1" + "0" * 5000, "True", "1.", "None", '"1"', "0x7fffffffffffffff", "1_000", "0o17",
)  # fmt: skip
FLOATS = (
    "0.", "-0.", "1.", "-1.", "0.5", "1e300", "-1e300", "1e-300", "5e-324", "inf", "-inf", "nan", "1e999",
    "torch.float(\"nan\")", "2.0000001", "1e10", "0." + "3" * 5000, "3", "1j",
)  # fmt: skip
STRINGS = (
    '""', '"a"', '"\\033]0;PWNED\\007\\033[2J"', '"\\x1b[31m"', '"\\n\\r\\t"', '"%s%n%d"', '"{}{}{}"',
    '"<script>alert(1)</script>"', '"\\u202e"', '"\\udc80"', '"' + "A" * 3000 + '"', '"../../canary"', '"\\0"',
    "'bilinear'", '"nearest"', '"cuda:0"', '"meta"', '"cpu"',
)  # fmt: skip
DTYPES = (
    "-1", "-100", "99", "255", "256", "2147483647", "-9223372036854775807", "6", "7", "5", "15", "11", "9", "3",
    "0", "12", "44", "1000000", "None", '"float"', "[6]", "6.",
)  # fmt: skip
TYPES = (
    "Tensor", "int", "float", "bool", "str", "NoneType", "Any", "Device", "List[int]", "List[List[int]]",
    "List[Tensor]", "Tuple[int, int]", "Tuple[()]", "Optional[Tensor]", "Dict[str, Tensor]", "Future[int]",
    "RRef[int]", "List[List[List[float]]]", "number", "Union[int, str]", "__torch__.Nothing", "Storage",
    "t", "Optional[" * 60 + "int" + "]" * 60, "Callable", "Generator", "Stream", "complex", "Final[int]",
)  # fmt: skip

# Operators that networks have, called in wrong ways. Each line is a statement.
CALLS = """
{v} = torch.conv2d({x}, {x}, None, [1, 1], [0, 0], [1, 1])
{v} = torch.conv2d({x}, torch.ones([2, 1, 3, 3]), None, [{i}, {i}], [0, 0], [1, 1], 1)
{v} = torch.conv2d({x}, torch.ones([2, 1, 3, 3]), None, [1, 1], [{i}, {i}], [1, 1], 1)
{v} = torch.conv2d({x}, torch.ones([2, 1, 3, 3]), None, [1, 1], [0, 0], [{i}, {i}], 1)
{v} = torch.conv2d({x}, torch.ones([2, 1, 3, 3]), None, [1, 1], [0, 0], [1, 1], {i})
{v} = torch._convolution({x}, torch.ones([2, 1, 3, 3]), None, [1, 1], [0, 0], [1, 1], False, [0, 0], {i}, False, False, True, True)
{v} = torch.conv_transpose2d({x}, torch.ones([1, 2, 2, 2]), None, [{i}, 2], [{i}, 0], [{i}, 0], 1, [1, 1])
{v} = torch.conv2d({x}, torch.ones([2, 1, 3, 3]), torch.ones([{n}]), {i}, "same")
{v} = torch.max_pool2d({x}, [{i}, {i}], [{i}, 1], [0, 0], [1, 1], False)
{v} = torch.max_pool2d({x}, [2, 2], [2, 2], [{i}, {i}], [{i}, 1], True)
{v} = torch.max_pool2d({x}, [])
{v} = torch.avg_pool2d({x}, [{i}], [{i}], [{i}], True, True, {i})
{v} = torch.avg_pool2d({x}, [2, 2], [2, 2], [0, 0], False, True, 0)
{v} = torch.adaptive_avg_pool2d({x}, [{i}, {i}])
{v} = torch.adaptive_max_pool2d({x}, [{i}, {i}])
{v}, {v}1 = torch.max_pool2d_with_indices({x}, [2, 2], [2, 2], [0, 0], [1, 1], False)
{v} = torch.upsample_nearest2d({x}, [{i}, {i}], None)
{v} = torch.upsample_nearest2d({x}, None, [{f}, {f}])
{v} = torch.upsample_nearest2d({x}, [8, 8], {f}, {f})
{v} = torch.upsample_bilinear2d({x}, [{i}, {i}], False, None)
{v} = torch.upsample_bilinear2d({x}, None, True, [{f}, {f}])
{v} = torch.upsample_bilinear2d({x}, [8, 1000], False, {f}, {f})
{v} = torch.upsample_bicubic2d({x}, [{i}, 8], False, [{f}, {f}])
{v} = torch._upsample_bilinear2d_aa({x}, [8, 1000], False, {f}, {f})
{v} = torch._upsample_bicubic2d_aa({x}, [1000, 8], False, {f}, {f})
{v} = torch._upsample_nearest_exact2d({x}, [{i}, {i}], {f}, {f})
{v} = torch.pad({x}, [{i}, {i}, {i}, {i}], {s}, {f})
{v} = torch.constant_pad_nd({x}, [{i}, {i}], {f})
{v} = torch.constant_pad_nd({x}, [{i}])
{v} = torch.reflection_pad2d({x}, [{i}, {i}, {i}, {i}])
{v} = torch.replication_pad2d({x}, [{i}, {i}, {i}, {i}])
{v} = torch.view({x}, [{i}, {i}])
{v} = torch.reshape({x}, [{i}, -1])
{v} = torch.view({x}, [-1, -1])
{v} = torch.flatten({x}, {i}, {i})
{v} = torch.unflatten({x}, 1, [{i}, {i}])
{v} = torch.permute({x}, [{i}, 0, 1, 2])
{v} = torch.permute({x}, [0, 0, 0, 0])
{v} = torch.transpose({x}, {i}, {i})
{v} = torch.squeeze({x}, {i})
{v} = torch.unsqueeze({x}, {i})
{v} = torch.expand({x}, [{i}, {i}, {i}, {i}])
{v} = torch.repeat({x}, [{i}, 1, 1, 1])
{v} = torch.cat([{x}, {x}, {y}], {i})
{v} = torch.cat([])
{v} = torch.cat([{x}, torch.slice({x}, 1, 0, 0)], 1)
{v} = torch.stack([{x}, {y}], {i})
{v} = torch.chunk({x}, {i}, {i})
{v} = torch.split({x}, {i}, 0)
{v} = torch.split({x}, [{i}, {i}], 0)
{v} = torch.split_with_sizes({x}, [{i}, {i}], {i})
{v} = torch.unbind({x}, {i})
{v} = torch.slice({x}, {i}, {i}, {i}, {i})
{v} = torch.slice({x}, 2, 0, 9223372036854775807, {i})
{v} = torch.select({x}, {i}, {i})
{v} = torch.narrow({x}, {n}, {i}, {i})
{v} = torch.mean({x}, [{i}, {i}], False, dtype={d})
{v} = torch.sum({x}, [{i}], {s}, dtype={d})
{v} = torch.mean({x}, [2, 2])
{v} = torch.var({x}, [2, 3], {i}, True)
{v} = torch.std({x}, dim=[], correction={i}, keepdim=False)
{v} = torch.softmax({x}, {i}, {d})
{v} = torch.log_softmax({x}, {i}, dtype={d})
{v} = torch.dropout({x}, {f}, True)
{v} = torch.dropout({x}, {f}, False)
{v} = torch.feature_dropout({x}, {f}, True)
{v} = torch.batch_norm({x}, None, None, None, None, True, {f}, {f}, True)
{v} = torch.batch_norm({x}, {y}, {y}, {y}, {y}, False, {f}, {f}, {i})
{v} = torch.instance_norm({x}, None, None, None, None, True, {f}, {f}, False)
{v} = torch.group_norm({x}, {i}, None, None, {f}, False)
{v} = torch.layer_norm({x}, [{i}], None, None, {f}, False)
{v} = torch.layer_norm({x}, [], None, None)
{v} = torch.local_response_norm({x}, {i}, {f}, {f}, {f})
{v} = torch.leaky_relu({x}, {f})
{v} = torch.elu({x}, {f}, {f}, {f})
{v} = torch.hardtanh({x}, {f}, {f})
{v} = torch.softplus({x}, {f}, {f})
{v} = torch.prelu({x}, torch.ones([{i}]))
{v} = torch.gelu({x}, approximate={s})
{v} = torch.clamp({x}, {f}, {f})
{v} = torch.threshold({x}, {f}, {f})
{v} = torch.pow({x}, {f})
{v} = torch.div({x}, {i})
{v} = torch.div({x}, {f}, rounding_mode={s})
{v} = torch.add({x}, {y}, alpha={i})
{v} = torch.mul({x}, {i})
{v} = torch.sub({i}, {x})
{v} = torch.rsub({x}, {f}, {i})
{v} = torch.addmm({x}, {y}, {x}, beta={i}, alpha={f})
{v} = torch.linear({x}, torch.ones([{n}, {i}]), None)
{v} = torch.matmul({x}, {y})
{v} = torch.bmm({x}, {y})
{v} = torch.einsum({s}, [{x}, {x}])
{v} = torch.pixel_shuffle({x}, {i})
{v} = torch.pixel_unshuffle({x}, {i})
{v} = torch.channel_shuffle({x}, {i})
{v} = torch.to({x}, {d})
{v} = torch.to({x}, {d}, False, False, {i})
{v} = torch.to({x}, dtype={d}, layout={i}, device={s})
{v} = torch.to({x}, torch.device({s}), {d})
{v} = torch.contiguous({x}, memory_format={i})
{v} = torch.clone({x}, memory_format={i})
{v} = torch.size({x}, {i})
{v} = torch.zeros([{i}, {i}], dtype={d}, layout=None, device=None)
{v} = torch.ones([{i}], dtype={d})
{v} = torch.full([{i}], {f}, dtype={d}, pin_memory=True)
{v} = torch.empty([{i}], dtype={d}, memory_format={i})
{v} = torch.zeros_like({x}, dtype={d})
{v} = torch.arange({i}, dtype={d})
{v} = torch.arange(0, {f}, {f})
{v} = torch.linspace(0, 1, {i})
{v} = torch.eye({i})
{v} = torch.tensor([{i}, {f}])
{v} = torch.tensor([[1, 2], [3]], dtype={d})
{v} = torch.tensor({s})
{v} = torch.relu({x}, {y})
{v} = torch.relu()
{v} = torch.relu({x}, out={x})
{v} = torch.add({x}, {x}, out={x})
{v} = torch.add({x}, {x}, alpha=1, out={self}.training)
{v} = ops.aten.add({x}, {x}, alpha=1, out={x})
{v} = torch.cat([{x}], 1, out={x})
{v} = torch.relu(self={x})
{v} = torch.relu(input={x})
{v} = torch.relu(*[{x}])
{v} = torch.relu(**{{}})
{v} = torch.relu({x}, {x}={x})
"""  # noqa: E501

# Operators that no network needs.
FOREIGN = """
torch.save({x}, "canary")
ops.aten.save({x}, "canary")
{v} = torch.from_file("canary", True, {i})
{v} = torch.load("canary")
{v} = torch.as_strided({x}, [{i}, {i}], [{i}, {i}], {i})
{v} = torch.as_strided({x}, [1099511627776], [0], 0)
{v} = torch.set_({x}, {y})
{v} = torch.resize_({x}, [{i}])
{v} = torch.resize_as_({x}, torch.ones([{n}, 1000]))
{v} = torch.index_put_({x}, [torch.tensor([{i}])], {y}, False)
{v} = torch.index({x}, [torch.tensor([{i}])])
{v} = torch._index_put_impl_({x}, [torch.tensor([{i}])], {y}, False, True)
{v} = torch.index_select({x}, {n}, torch.tensor([{i}]))
{v} = torch.index_add_({x}, {n}, torch.tensor([{i}]), {x})
{v} = torch.gather({x}, {n}, torch.tensor([[[[{i}]]]]))
{v} = torch.scatter_({x}, {n}, torch.tensor([[[[{i}]]]]), {f})
{v} = torch.put_({x}, torch.tensor([{i}]), torch.tensor([{f}]))
{v} = torch.take({x}, torch.tensor([{i}]))
{v} = torch.masked_select({x}, torch.gt({x}, 0))
{v} = torch.masked_scatter_({x}, torch.gt({x}, 0), {y})
{v} = torch.embedding({x}, torch.tensor([{i}]))
{v} = torch.embedding_bag({x}, torch.tensor([{i}]), torch.tensor([{i}]))
{v} = torch.repeat_interleave(torch.tensor([100, {i}]), output_size=10)
{v} = torch.repeat_interleave({x}, {i}, 0)
{v} = torch.bincount(torch.tensor([{n}, {i}]), None, {i})
{v} = torch.histc({x}, {i}, {f}, {f})
{v} = torch.bucketize({x}, torch.tensor([{f}]))
{v} = torch.unique_consecutive({x})
{v} = torch.nonzero({x})
{v} = torch.topk({x}, {i}, {i})
{v} = torch.kthvalue({x}, {i})
{v} = torch.sort({x}, {i})
{v} = torch.grid_sampler({x}, {y}, {i}, {i}, True)
{v} = torch.grid_sampler_2d(torch.ones([1, 1, 8, 8]), torch.mul(torch.ones([1, 8, 8, 2]), {f}), 0, {n}, {n})
{v} = torch.affine_grid_generator({x}, [{i}, 1, 1, 1], True)
{v} = torch.max_unpool2d({x}, torch.tensor([[[[{i}]]]]), [{n}, {n}])
{v} = torch.fractional_max_pool2d({x}, [2, 2], [{i}, 1], {y})
{v} = torch.adaptive_max_pool2d_backward({x}, {x}, torch.tensor([{i}]))
{v} = torch.max_pool2d_with_indices_backward({x}, {x}, [2, 2], [2, 2], [0, 0], [1, 1], False, torch.tensor([{i}]))
{v} = torch.im2col({x}, [{i}, 3], [1, 1], [0, 0], [1, {i}])
{v} = torch.col2im({x}, [{i}, {i}], [2, 2], [1, 1], [0, 0], [1, 1])
{v} = torch.unfold({x}, {n}, {i}, {i})
{v} = torch.roll({x}, [{i}], [{i}])
{v} = torch.diagonal({x}, {i}, {i}, {i})
{v} = torch.ctc_loss({x}, torch.tensor([{i}]), [{i}], [{i}], 0, 1, False)
{v} = torch.nll_loss({x}, torch.tensor([{i}]), None, 1, {i})
{v} = torch.segment_reduce({x}, "sum", lengths=torch.tensor([{i}]), axis=0)
{v} = torch.lstm({x}, [{x}, {x}], [{x}], True, {i}, 0., False, False, False)
{v} = torch.quantize_per_tensor({x}, {f}, {i}, {d})
{v} = torch.fake_quantize_per_channel_affine({x}, {y}, {y}, {i}, 0, 255)
{v} = torch.sparse_coo_tensor(torch.tensor([[{i}]]), torch.tensor([{f}]), [{n}])
{v} = torch._sparse_coo_tensor_unsafe(torch.tensor([[{i}]]), torch.tensor([{f}]), [{n}])
{v} = torch.sparse_csr_tensor(torch.tensor([0, {i}]), torch.tensor([{i}]), torch.tensor([{f}]), [1, {n}])
{v} = torch.to_mkldnn({x})
{v} = torch.view_as_complex({x})
{v} = torch.view({x}, dtype={d})
{v} = torch.fft_fft({x}, {i}, {i})
{v} = torch.stft({x}, {i}, {i}, {i}, None, False, True, True)
{v} = torch.linalg_cholesky({x})
{v} = torch._cholesky_solve_helper({x}, {x}, False)
{v} = torch.lu_unpack({x}, torch.tensor([{i}]))
{v} = torch.tril_indices({i}, {i}, {i})
{v} = torch.multinomial({x}, {i}, True)
{v} = torch.rand([2, 2])
{v} = torch.randint({i}, {i}, [2])
{v} = torch.manual_seed({i})
{v} = torch.normal_({x}, 0., {f})
{v} = torch._assert_async({x}, {s})
{v} = torch._nested_tensor_from_mask({x}, {x})
{v} = torch._pack_padded_sequence({x}, torch.tensor([{i}]), True)
{v} = torch._embedding_bag_forward_only({x}, torch.tensor([{i}]), torch.tensor([{i}]))
{v} = torch._make_dual({x}, {x}, {i})
{v} = torch._copy_from({x}, {y}, False)
{v} = torch._thnn_fused_lstm_cell({x}, {x}, {x})
{v} = torch._coalesced_({x}, True)
{v} = torch._values({x})
{v} = torch._fused_dropout({x}, {f})
{v} = torch._foreach_add([{x}], [{x}, {x}])
{v} = torch._amp_update_scale_({x}, {x}, {x}, {f}, {f}, {i})
{v} = torch.retain_grad({x})
{v} = torch.backward({x})
{v} = torch.requires_grad_({x}, True)
{v} = torch.hash({x})
{v} = torch.item({x})
{v} = torch.tolist({x})
{v} = torch.list({s})
{v} = torch.ord({s})
{v} = torch.mul({s}, {i})
{v} = torch.mul([{i}], {i})
{v} = torch.format({s}, {x})
{v} = torch.percentFormat({s}, {x})
{v} = torch.join({s}, [{s}])
{v} = torch.ljust({s}, {i})
{v} = torch.zfill({s}, {i})
{v} = torch.get_device({x})
{v} = torch.device({s})
{v} = torch.cuda({x})
{v} = torch.is_autocast_enabled()
{v} = torch.__getitem__([1, 2], {i})
{v} = torch.__contains__({{"a": {x}}}, {s})
{v} = torch.insert([1], {i}, 1)
{v} = torch.pop([1], {i})
{v} = torch._set_item([1], {i}, 1)
{v} = torch.Delete([1], {i})
{v} = torch.floordiv({i}, {i})
{v} = torch.remainder({i}, {i})
{v} = torch.fmod({i}, {i})
{v} = torch.floordiv(torch.sub(-9223372036854775807, 1), -1)
{v} = torch.remainder(torch.sub(-9223372036854775807, 1), -1)
{v} = torch.pow({i}, {i})
{v} = torch.__lshift__({i}, {i})
{v} = torch.neg({i})
{v} = torch.abs(torch.sub(-9223372036854775807, 1))
{v} = torch.factorial({i})
{v} = torch.gcd({i}, {i})
{v} = torch.ldexp({f}, {i})
{v} = torch.int({f})
{v} = torch.Int({x})
{v} = torch.Float({x})
{v} = torch.ScalarImplicit({x})
{v} = torch.IntImplicit({x})
{v} = torch.Size([{i}])
{v} = torch.range_length({i}, {i}, {i})
{v} = ops.prim.NumToTensor({i})
{v} = ops.prim.Print({s})
{v} = ops.prim.unchecked_unwrap_optional(None)
{v} = ops.prim.rpc_sync({s}, {s})
{v} = ops.prim.DictConstruct(1)
{v} = ops.prim.TupleIndex(({x}, {x}), {i})
{v} = ops.prim.tolist({x}, {i}, {i})
{v} = ops.prim.data({x})
{v} = ops.prim.AutogradZero()
{v} = ops.prim.BroadcastSizes([{i}], [{i}])
{v} = ops.prim.ModuleContainerIndex({self}, {s})
{v} = ops.quantized.conv2d({x}, {x}, {f}, {i})
{v} = ops.quantized.linear_prepack({x}, None)
{v} = ops.mkldnn._convolution_pointwise({x}, {x}, None, [0, 0], [1, 1], [1, 1], 1, {s}, [], None)
{v} = ops.prepacked.conv2d_clamp_prepack({x}, None, [1, 1], [0, 0], [1, 1], {i}, None, None)
{v} = ops.mylib.run({x})
{v} = ops.profiler._record_function_enter({s})
{v} = ops.inductor._reinterpret_tensor({x}, [{i}], [{i}], {i})
{v} = ops.aten._scaled_dot_product_flash_attention_for_cpu({x}, {x}, {x})
"""

# Statements that confuse types, lists, objects and control flow.
LANGUAGE = """
{v} = annotate(List[List[bool]], [])
{v} = annotate({t}, [])
{v} = annotate({t}, {x})
{v} = annotate({cls}, {x})
{v} = unchecked_cast({t}, {x})
{v} = unchecked_cast({cls}, {x})
{v} = unchecked_cast({t}, {self})
{v} = unchecked_cast(Tensor, {i})
{v} = uninitialized({t})
{v} = uninitialized({cls})
{v} = torch.append(unchecked_cast(List[int], [{self}]), {i})
{v} = torch.append(unchecked_cast(List[List[int]], [[{x}]]), [{i}])
{v} = torch.append(unchecked_cast(List[Any], [{x}]), {self})
{v} = torch.tensor(unchecked_cast(List[List[int]], [[True]]))
{v} = ({self}, {x})
{v} = [{self}]
{v} = {self}
{v} = {cls}
{v} = torch
{v} = ops.aten
{v} = CONSTANTS
{v} = CONSTANTS.c0
{v} = CONSTANTS.c99999
{v} = torch.jit
{v} = inf
{v} = nanj
{v} = {self}.forward
{v} = {self}.forward({x}, )
{v} = ({self}).forward({x}, )
{v} = {self}.training
{v} = {self}.nothing
{v} = getattr({self}, {s})
{v} = getattr({x}, "data")
{v} = getattr(torch, "save")
{v} = hasattr({self}, {s})
{self}.training = True
{self}.training = {x}
{self}.weight = {x}
{self}.nothing = {x}
setattr({self}, "training", True)
{x}.data = {x}
{x}.requires_grad = True
{x}.grad
{v} = {x}.T
{v} = {x}.is_cuda
{v} = {x}.save("canary")
{x}[0] = 1
{v} = {x}[{i}]
{v} = {x}[{i}:{i}:{i}]
{v} = {x}[..., None]
{v} = ({x}, {x})[{i}]
{v} = [{x}][{i}]
{v} = {{"a": 1}}[{s}]
{v} = {{{s}: {x}}}
{v} = {x} + {x}
{v} = -{x}
{v} = not {x}
{v} = {x} if {x} else {y}
{v} = {x} and {y}
{v} = {i} < {i} < {i}
{v} = f"{{{x}!r}}"
{v} = b"abc"
{v} = ...
{v} = 1j
{v} = {i}
{v} = {f}
{v} = {s}
{v} = lambda: {x}
{v} = [{x} for _ in range({i})]
{v} = ({v}0 := {x})
{v}: int = {x}
{v}, {v}1 = {x}
{v}, {v}1, {v}2 = ({x}, {x})
{v}, *{v}1 = ({x}, {x})
{v} = {v}1 = {x}
{x} += {y}
torch, {v} = {x}, {x}
torch = {x}
{self} = {x}
annotate = {x}
Tensor = {x}
del {x}
pass
global {x}
nonlocal {x}
return {x}
return None
return
break
continue
yield {x}
{v} = await {x}
import os
from os import system
assert {x}
assert False, {s}
raise ValueError({s})
raise {x}
ops.prim.RaiseException({s})
ops.prim.RaiseException({s}, "builtins.SystemExit")
ops.prim.RaiseException({s}, {s})
torch.warn({s}, {i})
torch.warn({s})
print({s}, {x})
{v} = fork({self}.forward, {x})
{v} = torch.fork({x})
{v} = torch.wait({x})
{v} = torch.jit.annotate({t}, {x})
{v} = open("canary", "w")
{v} = eval({s})
{v} = exec({s})
{v} = __import__("os")
{v} = __torch__.os.system({s})
{v} = __torch__.torch.nn.functional.nothing({x}, )
{v} = {here}.nothing({x}, )
{v} = __torch__
{v} = {cls}({x})
{v} = {cls}.forward({self}, {x})
{v} = torch.relu_({x})
{v} = torch.add_({x}, 1)
{v} = torch.mul_({x}, {x})
{v} = torch.copy_({x}, {y})
{v} = torch.zero_({x})
{v} = torch.fill_({x}, {f})
{v} = torch.add_({self}.weight, {f})
{v} = torch.zero_({self}.weight)
{v} = torch.copy_({self}.weight, {x})
{v} = torch.mul_({self}.running_var, 0)
{v} = torch.transpose_({x}, 0, 1)
{v} = torch.squeeze_({x})
{v} = torch.detach_({x})
{v} = torch.sub_(torch.slice({x}, 3, 1), torch.slice({x}, 3, 0, -1))
{v} = torch.add_(torch.expand(torch.ones([1]), [{i}]), 1)
while True:|  {v} = {x}
while torch.gt({i}, {i}):|  {v} = torch.relu({x})
for {v} in range({i}):|  {v}0 = torch.relu({x})
for {v} in range(3):|  {x} = torch.cat([{x}, {x}], 1)
for {v} in {x}:|  pass
for {v} in [1, 2]:|  continue
if {x}:|  {v} = {x}|else:|  {v} = {y}
if torch.gt(torch.dim({x}), {i}):|  {v} = {x}|else:|  {v} = {i}
if torch.__is__({x}, None):|  {v} = {x}
if True:|  return {x}
if torch.gt(torch.item(torch.sum({x})), 0):|  ops.prim.RaiseException({s})
with torch.no_grad():|  {v} = {x}
try:|  {v} = {x}|except:|  pass
match {x}:|  case _:|    pass
def inner({x}: Tensor) -> Tensor:|  return {x}
class Inner(Module):|  pass
"""


# Definitions at the end of a file, and fields and methods at the end of a class (indented).
DEFINITIONS = """
def {v}(x: Tensor, y: int={here}.spin(1000000000000)) -> Tensor:|  return x
def {v}(x: Tensor, y: List[int]=[{i}, {i}]) -> Tensor:|  return x
def {v}(x: Tensor, y: float={f}, z: str={s}) -> Tensor:|  return x
def {v}(x: Tensor, y: int=torch.floordiv({i}, {i})) -> Tensor:|  return x
def {v}(x: Tensor, y: {t}=None) -> Tensor:|  return x
def {v}(x: {t}) -> {t}:|  return x
def {v}(x: Tensor, *rest: Tensor) -> Tensor:|  return x
def {v}(x: Tensor, **rest: Tensor) -> Tensor:|  return x
def {v}(x: Tensor, /, *, y: Tensor) -> Tensor:|  return x
def {v}(x) -> Tensor:|  return x
def {v}(x: Tensor):|  return x
def {v}(x: Tensor, x: Tensor) -> Tensor:|  return x
def {v}(torch: Tensor) -> Tensor:|  return torch
def {v}(x: Tensor) -> Tensor:|  pass
def {v}(x: int) -> int:|  return {here}.{v}(torch.add(x, 1), )
async def {v}(x: Tensor) -> Tensor:|  return x
def forward(self: {cls}, x: Tensor) -> Tensor:|  return x
def __torch__(x: Tensor) -> Tensor:|  return x
def \N{LATIN SMALL LETTER E WITH ACUTE}(x: Tensor) -> Tensor:|  return x
def \N{LATIN SMALL LIGATURE FI}(x: Tensor) -> Tensor:|  return x
@torch.jit.script|def {v}(x: Tensor) -> Tensor:|  return x
class {v}(Module):|  a : int
class torch(Module):|  __parameters__ = []
class __torch__(Module):|  __parameters__ = []
class {v}(NamedTuple):|  a : int|  b : Tensor
class {v}(Enum):|  a = 1
class {v}(ModuleInterface):|  def forward(self, x: Tensor) -> Tensor:|    pass
class {v}(Module, metaclass=type):|  pass
class {v}:|  pass
class {v}(object):|  def __init__(self: {here}.{v}) -> NoneType:|    return None
type {v} = int
{v} = 1
torch.save([1], "canary")
import os
  extra : {t}
  extra : {cls}
  extra : int = 3
  training : int
  weight : {t}
  bias : {t}
  weight : Tensor
  __annotations__["0"] = {t}
  __annotations__[{s}] = int
  __parameters__ = ["training", ]
  __parameters__ = [{s}]
  __buffers__ = ["weight", ]
  __forward_hooks__ = ["hook", ]
  __constants__ = [{i}]
  stride : Final[int] = {i}
  stride : Final[Tuple[int, int]] = ({i}, {i})
  in_features : Final[int] = {s}
  note : Final[str] = {s}
  table : Final[List[int]] = [{i}]
  def __setstate__(self: {cls}, s: int) -> NoneType:|    return None
  def __getstate__(self: {cls}) -> NoneType:|    return None
  def __del__(self: {cls}) -> NoneType:|    return None
  def __len__(self: {cls}) -> int:|    return {i}
  def __call__(self: {cls}, x: Tensor) -> Tensor:|    return x
  def __getattr__(self: {cls}, x: str) -> Tensor:|    return x
  def forward(self: {cls}) -> NoneType:|    return None
  def forward(self: {cls}, x: Tensor) -> Tensor:|    return (self).forward(x, )
  def _conv_forward(self: {cls}, input: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:|    return input
  def {v}(self: Tensor) -> NoneType:|    return None
  def {v}() -> NoneType:|    return None
  @staticmethod|  def {v}(self: {cls}) -> NoneType:|    return None
"""


def templates(block: str) -> tuple[str, ...]:
    """The templates of a block; "|" ends a line."""
    return tuple(line for line in block.strip("\n").split("\n") if line)


STATEMENTS = templates(CALLS) + templates(FOREIGN) + templates(LANGUAGE)
DEFINED = templates(DEFINITIONS)
