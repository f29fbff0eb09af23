"""
Assembly: which extensions the settings of a registry ask for.

It is imported only where a setting, an option of a class or a method asks for a capability.
"""

from __future__ import annotations

from .lifecycle.listening import build_listeners, removal_listeners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .memory.manager import MemoryManager
    from .options import ClassOptions
    from .registry import BaseRegistry
    from .settings import RegistrySettings

__all__ = [
    "attach_extensions",
    "attach_for_options",
    "build_listeners",
    "memory_manager",
    "removal_listeners",
    "start_services",
]


def attach_extensions(registry: BaseRegistry, settings: RegistrySettings) -> None:
    """
    Attach what the settings ask for and classes may be registered with.

    Args:
        registry: The registry; no class is registered yet.
        settings: Its settings.
    """
    if settings.block_when_full:
        from .lifecycle.capacity import Capacity

        registry.attach(Capacity(settings.block_timeout_seconds))
    if settings.closing == "background":
        from .lifecycle.closing_thread import ClosingThread

        registry.attach(ClosingThread(registry))
    if settings.manages_memory:
        memory_manager(registry)
    if settings.max_cache_size == "auto":
        from .memory.autosize import Autosize

        registry.attach(Autosize(registry))
    elif settings.plan:
        from .planning.ghosts import ghosts_of

        ghosts_of(registry)
    if settings.store is not None:
        from .share.sharing import Sharing

        registry.attach(Sharing(settings.store))
    if settings.host_budget:
        from .share.host import member_of

        registry.attach(member_of(settings.host_budget, registry))


def start_services(registry: BaseRegistry, settings: RegistrySettings) -> None:
    """
    Start what runs in threads of its own.

    Args:
        registry: The registry, complete.
        settings: Its settings.
    """
    interval = settings.sweep_interval_seconds
    if settings.host_budget and not interval:
        from .share.host import HostMember

        member = registry.extension(HostMember)
        interval = 0.0 if member is None else member.interval(registry)
    if interval > 0.0:
        from .lifecycle.sweeper import Sweeping

        registry.attach(Sweeping(registry, interval))
    if settings.observe_socket:
        from .observe.serving import serve_by_setting

        serve_by_setting(registry)


def attach_for_options(registry: BaseRegistry, options: ClassOptions) -> None:
    """
    Attach what the options of a class or a family need.

    Args:
        registry: The registry.
        options: The options.
    """
    if options.managed:
        memory_manager(registry).serve(registry, options)
    if options.validate is not None:
        from .lifecycle.validation import Validation

        registry.attach(Validation())
        registry.validates = True


def memory_manager(registry: BaseRegistry) -> MemoryManager:
    """Return the memory manager of a registry, attached at the first call."""
    from .memory.manager import MemoryManager

    manager = registry.extension(MemoryManager)
    if manager is None:
        # First: what it measures is in the events of the listeners.
        manager = registry.attach(MemoryManager(registry), first=True)
    return manager
