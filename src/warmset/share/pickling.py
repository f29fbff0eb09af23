"""
From an instance to a pickle with its large buffers beside it, and back.

Arrays of numpy, and all that is made of them, hand out their memory themselves, by protocol 5.
Tensors of torch do not; the storages of those on the CPU are taken here. What stands in an instance
and is another instance of the registry is not copied: it is stored by its class name, and asked for
when the snapshot is opened.
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
    """An instance as bytes."""

    pickled: bytes
    buffers: list[memoryview]
    """They belong to the instance; not copied."""
    modules: frozenset[str]
    """Of all classes and functions that it is made of."""
    written: frozenset[int]
    """Which buffers have to be writable, whatever the class asks for: those of torch, which knows
    no others."""


def dump(instance: Any, others: Mapping[int, str]) -> Pickled:
    """
    Pickle an instance.

    Args:
        instance: Anything that can be pickled.
        others: The `id` of each other instance of the registry -> its class name.

    Returns:
        Its bytes.

    Raises:
        Exception: It cannot be pickled; what is raised is its own classes' to choose.
    """
    buffers: list[memoryview] = []
    written: set[int] = set()
    stream = io.BytesIO()

    def beside(buffer: pickle.PickleBuffer) -> bool:
        if pickler.of_torch:
            pickler.of_torch = False
            written.add(len(buffers))
        buffers.append(buffer.raw())
        return False  # taken

    pickler = _Pickler(stream, others, beside)
    pickler.dump(instance)
    return Pickled(stream.getvalue(), buffers, frozenset(pickler.modules), frozenset(written))


def load(
    pickled: memoryview | bytes, buffers: Sequence[Any], instance_of: Callable[[str], Any]
) -> Any:
    """
    Make an instance of its bytes; this runs what the pickle says.

    Args:
        pickled: Of `dump`, and trusted.
        buffers: Of `dump`, in their order.
        instance_of: Gives the instance of another class of the registry.

    Returns:
        The instance; it uses the buffers where they lie.

    Raises:
        Exception: Whatever its classes raise.
    """
    return _Unpickler(pickled, buffers, instance_of).load()


class _Pickler(pickle.Pickler):
    def __init__(
        self,
        stream: io.BytesIO,
        others: Mapping[int, str],
        beside: Callable[[pickle.PickleBuffer], bool],
    ) -> None:
        super().__init__(stream, protocol=5, buffer_callback=beside)
        self.modules: set[str] = set()
        self.of_torch = False
        self._others = others
        self._torch = _TorchStorages(self)

    def reducer_override(self, obj: Any) -> Any:
        # Called for each object but those of the plain built-in types.
        name = self._others.get(id(obj))
        if name is not None:
            return _instance_of, (name,)
        kind = type(obj)
        # Of a class or function its own module; so also of what is of a type that comes from no
        # file, as Cython's functions are.
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
        instance_of: Callable[[str], Any],
    ) -> None:
        super().__init__(io.BytesIO(pickled), buffers=buffers)
        self._instance_of = instance_of

    def find_class(self, module_name: str, name: str, /) -> Any:
        if module_name == __name__ and name == "_instance_of":
            return self._instance_of
        return super().find_class(module_name, name)


def _instance_of(class_name: str) -> Any:
    raise AssertionError(f"{class_name!r} was asked for outside a registry")  # see `_Unpickler`


class _TorchStorages:
    """
    Tensors on the CPU, by their storages.

    torch's own way copies each storage into the pickle. Tensors that share a storage share it
    again.
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
        place = obj.storage_offset(), tuple(obj.size()), obj.stride()
        wanted = obj.requires_grad
        return _tensor, (storage, str(obj.dtype), place, type(obj) is torch.nn.Parameter, wanted)


def _storage(buffer: Any) -> Any:
    torch: Any = sys.modules["torch"]  # imported: the requirements of the snapshot were checked
    if not memoryview(buffer).nbytes:
        return torch.UntypedStorage(0)
    return torch.frombuffer(buffer, dtype=torch.uint8).untyped_storage()


def _tensor(storage: Any, dtype: str, place: Any, is_parameter: bool, requires_grad: bool) -> Any:
    torch: Any = sys.modules["torch"]
    offset, size, stride = place
    kind = getattr(torch, dtype.partition(".")[2])
    tensor = torch.empty(0, dtype=kind).set_(storage, offset, size, stride)
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_(requires_grad)
