# Builds for which nothing takes part but the class that is called: the shortest path of a miss.
# Twin of `_plain_py`, which tells when it is taken.
#
# With the interpreter lock held, nothing else runs between the return of the class and the end of
# the build but what is called here. Without one, the builder builds everything, and `_core` takes
# the record of the pure core.


cdef class BuildRecord:
    """What is known of a build in progress; see `builds.Build`."""

    cdef public object constructor
    cdef public object slot
    cdef public object key  # of builds with the same one, there is one at a time
    cdef public object loop  # the event loop that its instance belongs to, if any
    cdef public object loop_key  # what builds of that loop have in common
    cdef public object owner  # its context
    cdef public object outer  # the build that asked for this one
    cdef public object entry  # the build holds it
    cdef public object instance
    cdef public object closer  # of this very instance, where a provider yielded it
    cdef public object error
    cdef public object started  # by the stopwatch; None: nothing had to be built
    cdef public object replaces  # the entry that is recycled, if any
    cdef list _made
    cdef public list waiters
    cdef dict _notes
    cdef dict _asked_for
    cdef public long long token  # of the slot when the build began
    cdef public unsigned long thread
    cdef public double began
    cdef public double seconds  # of a build that succeeded, without the import of its module
    cdef public double import_seconds
    cdef public double elsewhere  # seconds that it spent on looking up names that were not warm
    cdef public bint published  # whether the entry was cached
    cdef public bint aside  # for its caller alone, and not cached: see `Builder`
    cdef public bint opened  # whether it came from a snapshot
    cdef public bint interrupted
    cdef public bint done  # whoever begins to wait from here on is not served
    cdef public bint completed  # all waiters are awake

    def __cinit__(self, constructor, Slot slot not None, long long token, owner, outer):
        self.constructor = constructor
        self.slot = slot
        self.key = self.loop_key = slot.key
        self.token = token
        self.owner = owner
        self.thread = owner if type(owner) is int else PyThread_get_thread_ident()
        self.outer = outer
        self.began = perf_counter()
        self.waiters = []

    @property
    def made(self):
        """What its rule or constructor returned, until an entry has it."""
        if self._made is None:
            self._made = []
        return self._made

    @property
    def notes(self):
        """Of extensions, by extension."""
        if self._notes is None:
            self._notes = {}
        return self._notes

    @property
    def asked_for(self):
        """The names it looked up that were not warm."""
        if self._asked_for is None:
            self._asked_for = {}
        return self._asked_for


@cython.final
cdef class PlainBuilds:
    """
    Builds that call a class, with the arguments it is registered with, and do nothing else.

    Args:
        build_type: Makes the record of a build.
        builds: The builds in progress, by the keys of their slots.
        running: The innermost build of each context.
        rules: By class name.
        failures: Those that are remembered, by the keys of slots.
        awaiting: By thread, what awaits for it in an event loop.
        closed: By identity, what the registry closed and what still exists.
        owners: Has to know each entry once it was searched; see `owners.Owners`.
        hooks: The names of methods that users replace to build otherwise, and what these are.
        current_context: Returns the number of the thread, or the greenlet; see `contexts`.
        stopwatch: Returns seconds.
        returned_none: Returns the error for a class that returned None.
        fail: Counts a build that raised something, and may raise what that means.
        end: Ends a build that raised something, and gives its hold back.
        info_wanted: Tells whether a log record of a build would be emitted.
    """

    cdef object _build_type
    cdef dict _builds
    cdef dict _running
    cdef dict _rules
    cdef dict _failures
    cdef dict _awaiting
    cdef dict _closed
    cdef object _owners
    cdef tuple _hooks
    cdef object _current_context
    cdef object _stopwatch
    cdef dict _paths  # path -> name of its module and attribute
    cdef object _returned_none
    cdef object _fail
    cdef object _end
    cdef object _info_wanted

    def __init__(
        self,
        *,
        build_type,
        dict builds not None,
        dict running not None,
        dict rules not None,
        dict failures not None,
        dict awaiting not None,
        dict closed not None,
        owners,
        dict hooks not None,
        current_context,
        stopwatch,
        returned_none,
        fail,
        end,
        info_wanted,
    ):
        self._build_type = build_type
        self._builds = builds
        self._running = running
        self._rules = rules
        self._failures = failures
        self._awaiting = awaiting
        self._closed = closed
        self._owners = owners
        self._hooks = tuple(hooks.items())
        self._current_context = current_context
        self._stopwatch = stopwatch
        self._paths = {}
        self._returned_none = returned_none
        self._fail = fail
        self._end = end
        self._info_wanted = info_wanted

    cdef tuple build(self, RegistryCore core, object class_name):
        """Build an instance; return it and its entry, held. None: the builder has to build it."""
        cdef Slot slot
        cdef Entry entry
        if FREE_THREADED or type(class_name) is not str:
            return None
        slot = _slot_named(core, class_name)
        if slot is None:
            return None
        me = PyThread_get_thread_ident()
        if "greenlet" in MODULES:
            me = self._current_context()
        target = self._target(core, slot, me)
        if target is None:
            return None
        handled = _handled()
        mine = self._build_type(core, slot, 0, me, None)
        try:
            entry = self._run(core, slot, target, <BuildRecord?>mine)
            if entry is None:
                return None
            if self._info_wanted("builds"):
                core.report_build(mine, (<BuildRecord>mine).seconds)
        except BaseException as raised:
            try:
                self._fail(mine, raised, handled)
            finally:
                try:
                    self._end(mine)
                except BaseException:
                    self._end(mine)  # an interrupt in it
                    raise
            raise
        return (<BuildRecord>mine).instance, entry

    cdef Entry _run(self, RegistryCore core, Slot slot, object target, BuildRecord mine):
        """Construct, publish and complete; None if another build of the name is in progress."""
        cdef Entry entry
        cdef int result
        if self._builds.setdefault(slot.key, mine) is not mine:
            return None
        self._running[mine.owner] = mine
        mine.token = slot.generation + core._generation
        if slot._entry is not None:  # another build has completed meanwhile
            self._end(mine)
            return None
        began = self._stopwatch()
        mine.started = began
        if slot._options is None:
            entry = _construct(core, slot, target, mine, ())
        else:
            given = slot._options.kwargs
            make = partial(target, **given) if given else target
            entry = _construct(core, slot, make, mine, slot._options.args)
        if entry is None:
            raise self._returned_none(slot)
        mine.instance = entry._content
        mine.seconds = max(0.0, self._stopwatch() - began)
        if self._owners.found is not None:
            self._owners.note(entry)
        if core.by_policy:
            mine.published = core.add(entry, mine.token, mine.seconds)
        else:
            mine.published = _add(core, entry, mine.token, mine.seconds)
        self._builds.pop(slot.key, None)
        mine.done = True
        if mine.waiters:
            mine.complete()
        else:
            self._running.pop(mine.owner, None)
            mine.completed = True
        return entry

    cdef object _find(self, str path):
        """As `resolver.find_ready`."""
        cdef PyObject* found = PyDict_GetItemWithError(self._paths, path)
        cdef dict known
        if found == NULL:
            module_name, _, attribute = path.rpartition(".")
            if len(self._paths) >= MOST_PATHS:
                self._paths.clear()
            self._paths[path] = pair = module_name, attribute
        else:
            pair = <object>found
        module = MODULES.get((<tuple>pair)[0])
        if type(module) is not ModuleType:  # such as one that imports at first use
            return None
        known = module.__dict__
        target = known.get((<tuple>pair)[1])
        if not isinstance(target, type):
            return None
        # The import system sets it while the code of the module runs, maybe in another thread.
        return None if getattr(known.get("__spec__"), "_initializing", False) else target

    cdef object _target(self, RegistryCore core, Slot slot, object me):
        """The class that is called, if that is all; or None."""
        key = slot.key
        if (
            slot._entry is not None
            or core.left_over
            or core.sealed
            or self._closed
            or (self._rules and key in self._rules)
            or (self._failures and key in self._failures)
            # It runs in a build, for an event loop, or in a greenlet.
            or (self._running and me in self._running)
            or (self._awaiting and me in self._awaiting)
            or type(me) is not int
        ):
            return None
        replaced = core.__dict__
        for name, method in self._hooks:
            if name in replaced or (
                _PyType_Lookup(Py_TYPE(<PyObject*>core), name) != <PyObject*>method
            ):
                return None
        target = slot._target
        if type(target) is str:
            return self._find(target)
        return target if isinstance(target, type) else None


cdef object _handled():
    """The exception that is being handled, or None."""
    cdef PyObject* kind
    cdef PyObject* error
    cdef PyObject* traceback
    PyErr_GetExcInfo(&kind, &error, &traceback)
    if kind != NULL:
        _owned(kind)
    if traceback != NULL:
        _owned(traceback)
    return None if error == NULL else _owned(error)


cdef bint _add(RegistryCore core, Entry entry, long long token, double seconds) except -1:
    """As `Cache.add`, where no policy and no capacity decides; whether it was cached."""
    cdef list victims = []
    cdef PyObject* victim
    cdef int result = FULL
    while result == FULL:
        result = _publish(core, entry, token, seconds, core.max_size, None, False)
        victim = _oldest(core, NULL) if result == FULL else NULL
        if victim != NULL:
            oldest = <object>victim
            if _detach(core, oldest, SIZE, False):
                victims.append(oldest)
    if victims:
        try:
            core.handle_removed(victims)
        except BaseException:
            core.left_over = True
            raise
    return result == PUBLISHED
