"""
Pickling of instances with their large buffers out of band.

numpy arrays, and objects that consist of them, provide their buffers through pickle protocol 5.
torch tensors do not, so this module extracts the storages of tensors on the CPU. A reference to
another instance of the registry is pickled as its class name, or as its family and key, and
resolved by a look-up when the snapshot is opened.
"""

from __future__ import annotations

import io
import pickle
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Pickled", "dump", "load"]


class Pickled(NamedTuple):
    """A pickled instance."""

    pickled: bytes
    buffers: list[memoryview]
    """The out-of-band buffers; views of the instance's memory, not copies."""
    modules: frozenset[str]
    """The modules of all classes and functions that it contains."""
    written: frozenset[int]
    """The indexes of the buffers that must be writable in any case: those of torch tensors, which
    cannot be read-only."""


def dump(instance: Any, others: Mapping[int, tuple[Any, ...]]) -> Pickled:
    """
    Pickle an instance.

    Args:
        instance: The instance.
        others: `id` of each other instance of the registry -> what it is looked up by: a class
            name, or the name and the key of a family.

    Returns:
        The pickle and its buffers.

    Raises:
        Exception: The instance cannot be pickled; its classes choose the type of the error.
    """
    buffers: list[memoryview] = []
    written: set[int] = set()
    stream = io.BytesIO()

    def take_buffer(buffer: pickle.PickleBuffer) -> bool:
        if pickler.of_torch:
            pickler.of_torch = False
            written.add(len(buffers))
        buffers.append(buffer.raw())
        return False  # out of band

    pickler = _Pickler(stream, others, take_buffer)
    pickler.dump(instance)
    return Pickled(stream.getvalue(), buffers, frozenset(pickler.modules), frozenset(written))


def load(
    pickled: memoryview | bytes, buffers: Sequence[Any], instance_of: Callable[..., Any]
) -> Any:
    """
    Unpickle an instance; this executes code in the pickle.

    Args:
        pickled: The pickle of `dump`, from a trusted source.
        buffers: The buffers of `dump`, in the same order.
        instance_of: Looks up another instance of the registry, by the same.

    Returns:
        The instance, which uses the buffers in place.

    Raises:
        Exception: An error of the classes of the instance.
    """
    return _Unpickler(pickled, buffers, instance_of).load()


class _Pickler(pickle.Pickler):
    def __init__(
        self,
        stream: io.BytesIO,
        others: Mapping[int, tuple[Any, ...]],
        take_buffer: Callable[[pickle.PickleBuffer], bool],
    ) -> None:
        super().__init__(stream, protocol=5, buffer_callback=take_buffer)
        self.modules: set[str] = set()
        self.of_torch = False
        self._others = others
        self._torch = _TorchStorages(self)

    def reducer_override(self, obj: Any) -> Any:
        # Called for each object except those of plain built-in types.
        other = self._others.get(id(obj))
        if other is not None:
            return _instance_of, other
        kind = type(obj)
        # A class or function counts with its own module; so does an object whose type comes from no
        # file, such as a Cython function.
        module = None
        if not issubclass(kind, type) and _has_code(kind.__module__):
            module = kind.__module__
        module = getattr(obj, "__module__", None) if module is None else module
        if isinstance(module, str):
            self.modules.add(module)
        if kind.__module__.startswith("torch"):
            return self._torch.reduce(obj)
        return NotImplemented


def _has_code(module_name: object) -> bool:
    if not isinstance(module_name, str) or module_name == "builtins":
        return False
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        return True
    return getattr(sys.modules.get(module_name), "__file__", None) is not None


class _Unpickler(pickle.Unpickler):
    def __init__(
        self,
        pickled: memoryview | bytes,
        buffers: Sequence[Any],
        instance_of: Callable[..., Any],
    ) -> None:
        super().__init__(io.BytesIO(pickled), buffers=buffers)
        self._instance_of = instance_of

    def find_class(self, module_name: str, name: str, /) -> Any:
        if module_name == __name__ and name == "_instance_of":
            return self._instance_of
        return super().find_class(module_name, name)


def _instance_of(*key: Any) -> Any:
    raise AssertionError(f"{key!r} was unpickled outside a registry")  # see `_Unpickler`


class _TorchStorages:
    """
    Reduces tensors on the CPU to their storages.

    torch itself would copy each storage into the pickle. Tensors that share a storage still share
    it after unpickling.
    """

    def __init__(self, pickler: _Pickler) -> None:
        self._pickler = pickler
        self._storages: dict[int, Any] = {}

    def reduce(self, obj: Any) -> Any:
        torch: Any = sys.modules.get("torch")
        if torch is None:
            return NotImplemented
        if type(obj) is torch.UntypedStorage and obj.device.type == "cpu":
            self._pickler.of_torch = True
            flat = torch.empty(0, dtype=torch.uint8).set_(obj)
            return _storage, (pickle.PickleBuffer(flat.numpy()),)
        if type(obj) not in (torch.Tensor, torch.nn.Parameter) or obj.device.type != "cpu":
            return NotImplemented
        if obj.layout is not torch.strided or obj.is_quantized or not obj.is_leaf:
            return NotImplemented
        if obj.is_conj() or obj.is_neg() or vars(obj):
            return NotImplemented
        storage = obj.untyped_storage()
        storage = self._storages.setdefault(storage.data_ptr(), storage)
        layout = obj.storage_offset(), tuple(obj.size()), obj.stride()
        is_parameter = type(obj) is torch.nn.Parameter
        return _tensor, (storage, str(obj.dtype), layout, is_parameter, obj.requires_grad)


def _storage(buffer: Any) -> Any:
    torch: Any = sys.modules["torch"]  # imported when the requirements of the snapshot were checked
    if not memoryview(buffer).nbytes:
        return torch.UntypedStorage(0)
    return torch.frombuffer(buffer, dtype=torch.uint8).untyped_storage()


def _tensor(storage: Any, dtype: str, layout: Any, is_parameter: bool, requires_grad: bool) -> Any:
    torch: Any = sys.modules["torch"]
    offset, size, stride = layout
    kind = getattr(torch, dtype.partition(".")[2])
    tensor = torch.empty(0, dtype=kind).set_(storage, offset, size, stride)
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_(requires_grad)
