"""
warmset keeps the warm set of a long-lived process in bounds.

A registry of classes by name, a bounded cache of their instances, and an executor of their methods.
"""

from ._core import Handle, Lease, implementation
from .errors import (
    AmbiguousClassError,
    ArgRouterError,
    ArgumentValidationError,
    AsyncRuleError,
    BuildError,
    BuildTimeoutError,
    CapacityError,
    ClassAttributeError,
    ClassImportError,
    ClassPathError,
    ClosedError,
    CycleError,
    MethodNotFoundError,
    MethodRegistryError,
    NotAClassError,
    UnknownClassError,
)
from .family_keys import FamilyKey
from .legacy import CacheEntry, MethodExecutor, MethodRegistry
from .settings import RegistrySettings, SettingsError

__version__ = "0.1.0"

__all__ = [
    "AmbiguousClassError",
    "ArgRouterError",
    "ArgumentValidationError",
    "AsyncRuleError",
    "BuildError",
    "BuildTimeoutError",
    "CacheEntry",
    "CapacityError",
    "ClassAttributeError",
    "ClassImportError",
    "ClassPathError",
    "ClosedError",
    "CycleError",
    "FamilyKey",
    "Handle",
    "Lease",
    "MethodExecutor",
    "MethodNotFoundError",
    "MethodRegistry",
    "MethodRegistryError",
    "NotAClassError",
    "RegistrySettings",
    "SettingsError",
    "UnknownClassError",
    "__version__",
    "implementation",
]
