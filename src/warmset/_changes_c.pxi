# The compiled core's atomic operations: they change slots and entries, each in one step. Twin of
# `_changes_py`.
#
# Every operation is plain C from its first store to its last: no call into Python, no new container
# (the collector may run there before 3.12), no reference dropped. See the text of `_core_c.pyx`.


@cython.no_gc_clear
cdef class Changes(Ring):
    """What puts instances into a registry and takes them out of it, one atomic step at a time."""

    cdef public bint weak_mode

    # -- slots -----------------------------------------------------------------------------------

    def add_slot(self, class_name, target, options=None):
        """Return the slot of a name, made if need be, and its target before; None keeps that."""
        cdef Slot slot, fresh
        cdef PyObject* name = <PyObject*>class_name
        Py_INCREF(class_name)
        if type(class_name) is str:
            PyUnicode_InternInPlace(&name)
        class_name = _owned(name)
        fresh = Slot(class_name)
        fresh.table = self._table
        warmset_add_size(&self._table.owners, 1)
        _lock(self)
        try:
            slot = self._slots.setdefault(class_name, fresh)
            _check_owner(self, slot)
            before = slot._target, slot._options  # dropped after the change
            if target is not None or not slot._alive:
                warmset_lock(&slot.guard)
                slot._target = target
                slot._options = options
                warmset_unlock(&slot.guard)
                if type(class_name) is str:
                    self.registered += (target is not None) - (before[0] is not None)
            if not slot._alive:
                slot._alive = True
                slot.idle_limit = self._idle_limit
                slot.age_limit = self._age_limit
        finally:
            _unlock(self)
        return slot, before[0]

    def drop_slot(self, Slot slot not None):
        """Forget a slot, if it is the one of its name; nothing is published in it any more."""
        _begin(self, slot)
        dropped = bool(slot._alive)
        if dropped:
            slot._alive = False
            slot.generation += 1
            _hide(slot)
            warmset_wait(self._table)
            self.registered -= slot._target is not None and type(slot.key) is str
            self._slots.pop(slot.key, None)
        _unlock(self)
        return dropped

    def token(self, Slot slot not None):
        """Return a number that changes when the slot or the registry is cleared: see `publish`."""
        cdef long long token
        _begin(self, slot)
        token = slot.generation + self._generation
        _unlock(self)
        return token

    def invalidate(self, Slot slot not None):
        """Let no build of a slot that is in progress be published."""
        _begin(self, slot)
        slot.generation += 1
        _unlock(self)

    def seal(self):
        """Publish nothing any more: the registry is being closed."""
        _lock(self)
        self.sealed = True
        _unlock(self)

    def set_limits(self, Slot slot not None, idle_seconds, age_seconds):
        """Give a slot limits of its own; None takes the registry's, inf is none."""
        cdef double idle = self._idle_limit if idle_seconds is None else idle_seconds
        cdef double age = self._age_limit if age_seconds is None else age_seconds
        cdef PyObject* entry
        _begin(self, slot)
        if idle != self._idle_limit or age != INFINITY:
            self._one_limit = False
        slot.idle_limit = idle
        slot.age_limit = age
        entry = <PyObject*>slot._entry
        if _is_entry(entry) and not (<Entry>entry)._weak:
            warmset_store_time(&(<Entry>entry).deadline, (<Entry>entry).built_at + age)
        _choose_clock(self, idle, age)
        _unlock(self)

    def defer(self, Entry entry not None, double deadline):
        """Let a look-up after a time take the slow path; the entry expires by its age alone."""
        _begin(self, entry.slot)
        if not entry._weak:
            warmset_store_time(
                &entry.deadline, min(deadline, entry.built_at + entry.slot.age_limit)
            )
        _unlock(self)

    # -- entries: construction and publication ---------------------------------------------------

    def construct(self, Slot slot not None, make, source=None, tuple arguments=None):
        """Run a constructor, and put what it returns straight into a new entry, held once."""
        return _construct(self, slot, make, source, arguments)

    def place(self, Entry entry not None, Slot slot not None):
        """Let an entry that `construct` made, and that is not published yet, belong to a slot."""
        cdef bint fits
        before = entry.slot  # dropped after the change
        _check_owner(self, slot)
        _begin(self, entry.slot)
        fits = entry.state == HELD and not entry.eviction_serial
        if fits:
            entry.slot = slot
        _unlock(self)
        if not fits:
            raise ValueError(f"{entry!r} was published or removed: it stays in its slot")

    def publish(
        self,
        Entry entry not None,
        long long token,
        double seconds,
        *,
        most=None,
        Entry replacing=None,
        bint strict=False,
    ):
        """Cache an entry that `construct` made, unless its name was cleared since `token`."""
        cdef bint unbound = most is None or replacing is not None
        cdef Py_ssize_t bound = PY_SSIZE_T_MAX if unbound else most
        return _publish(self, entry, token, seconds, bound, replacing, strict)

    def adopt(
        self, Slot slot not None, content, *, bint weak, double built_at, double last_used,
        long long uses,
    ):
        """Cache an instance that was not built here, in an empty slot; its entry, or None."""
        cdef Entry entry = Entry(slot)
        if weak and type(content) is not weak_reference:
            raise TypeError(f"expected a weak reference, got {content!r}")
        entry._content = content
        warmset_share_reference(<PyObject*>content)
        entry._weak = weak
        entry.built_at = built_at
        entry.last_used = last_used
        entry._uses = uses
        entry._shared = True
        _begin(self, slot)
        if slot._alive and not self.sealed and slot._entry is None:
            slot.generation += 1
            self.adopted += 1
            entry.serial = <unsigned int>(self.builds + self.adopted)
            _enter_cache(self, entry)
            _sort_if_older(self, last_used)
        _unlock(self)
        return None if entry.state == NEW else entry

    def amend(self, Entry entry not None, double built_at, double last_used, long long uses):
        """Rewrite the times and uses of a cached entry, and move it to where they belong."""
        _begin(self, entry.slot)
        if entry.state == CACHED:
            warmset_late_uses(self._table, <PyObject*>entry, True)
            entry.built_at = built_at
            entry._uses = uses
            warmset_store_time(&entry.deadline, built_at + entry.slot.age_limit)
            _use(self, entry, last_used)
            _sort_if_older(self, last_used)
        _unlock(self)

    # -- entries: removal ------------------------------------------------------------------------

    def remove(self, Entry entry not None, int cause, *, double more_than=-1, bint even_held=False):
        """Remove an entry from the cache, if it is there."""
        cdef bint found = False
        cdef double much
        _check_cause(cause)
        _begin(self, entry.slot)
        much = <double>self.known_bytes if cause == MEMORY else <double>self.cached
        if much > more_than and not (cause <= MEMORY and entry.slot._pinned):
            found = _detach(self, entry, cause, even_held)
        _unlock(self)
        return found

    def take_all(self, int cause):
        """Remove every entry, and let no build in progress be published; what was removed."""
        cdef Slot slot
        cdef Entry entry
        cdef list entries
        cdef Py_ssize_t i
        _check_cause(cause)
        _lock(self)
        self._generation += 1
        _unlock(self)
        entries = self.ring(from_oldest=True)
        if self.weakly_kept:
            slots = list(self._slots.values())
            entries += [slot.entry for slot in slots if slot.table == self._table]
        _lock(self)
        for i in range(len(entries)):
            entry = entries[i]
            if entry is None or not _detach(self, entry, cause, True):
                entries[i] = None  # it is somebody else's by now
        _unlock(self)
        return [entry for entry in entries if entry is not None]

    def expire(self, Entry entry not None, double now):
        """Remove an entry if it is stale; whether it was removed, as `remove`."""
        cdef bint found
        _begin(self, entry.slot)
        found = _expire(self, entry, now)
        _unlock(self)
        return found

    def abandon(self, Entry entry not None):
        """Take an entry out of the cache and leave it alone: after a fork it is the parent's."""
        cdef bint found
        _begin(self, entry.slot)
        found = entry.state in (HELD, WAITING) or _detach(self, entry, DISCARDED, True)
        if found:
            _set_state(self, entry, PARENTS)
        _unlock(self)
        return found

    # -- entries: closing ------------------------------------------------------------------------

    def claim(self, Entry entry not None, list box not None):
        """Move the instance of a waiting entry into an empty list; whether it was there."""
        _check_owner(self, entry.slot)
        box.append(None)
        _routes = _recent = None
        _begin(self, entry.slot)
        if entry.state == WAITING and entry._content is not None:
            box[0] = entry._content
            warmset_lock(&entry.guard)
            entry._content = None
            warmset_unlock(&entry.guard)
            _routes, _recent = entry.routes, entry.recent  # dropped after the change
            entry.routes = None
            entry.recent = None
        _unlock(self)
        if box[0] is None:
            box.clear()
            return False
        return True

    def unclaim(self, Entry entry not None, list box not None):
        """Move the instance of a claimed entry back into it: its closer was not called."""
        content = box[0]
        _begin(self, entry.slot)
        if entry.state == WAITING and entry._content is None:
            warmset_lock(&entry.guard)
            entry._content = content
            warmset_unlock(&entry.guard)
        _unlock(self)
        self.left_over = True

    def settle(self, Entry entry not None, int state):
        """Give a claimed entry its final state."""
        if not WAITING < state < STATES:
            raise ValueError(f"expected a final state, got {state}")
        _begin(self, entry.slot)
        if entry.state == WAITING:
            _set_state(self, entry, state)
        _unlock(self)

    def settle_unclosable(self, list entries not None):
        """Let instances go that have no way to be closed; the other entries that wait for it."""
        cdef Entry entry
        cdef list others = []
        for entry in entries:
            if entry.state == WAITING and not _settle_unclosable(self, entry):
                others.append(entry)
        return others

    def is_alone(self, list box not None):
        """Whether nothing but this list refers to what is in it, as far as that can be known."""
        return len(box) == 1 and warmset_is_alone(PyList_GET_ITEM(box, 0))


cdef Entry _construct(Ring core, Slot slot, object make, object source, tuple arguments):
    """As `Changes.construct`, of which it is the whole."""
    cdef Entry entry = Entry(slot)
    _check_owner(core, slot)
    try:
        entry._content = make(slot) if arguments is None else make(*arguments)
    except StopIteration:
        raise RuntimeError("it raised StopIteration")
    if entry._content is None:
        return None
    if source is not None:
        entry.closer = source.closer
    # A lease may be released by another thread than the one that took it.
    warmset_share_reference(<PyObject*>entry._content)
    _lock(core)
    core.builds += 1
    entry.serial = <unsigned int>(core.builds + core.adopted)
    entry.holds = 1
    _set_state(core, entry, HELD)
    _unlock(core)
    if source is not None:
        source.entry = entry
    try:
        entry.built_at = entry.last_used = _now(core)
    except BaseException:
        if source is None:
            core.release(entry, None)
        raise
    return entry


cdef int _publish(
    Changes core,
    Entry entry,
    long long token,
    double seconds,
    Py_ssize_t bound,
    Entry replacing,
    bint strict,
) except -1:
    """As `Changes.publish`, of which it is the whole."""
    cdef Slot slot = entry.slot
    cdef bint weak = False
    cdef int result = STALE
    content = entry._content
    if core.weak_mode and replacing is None and entry.closer is None:
        try:
            content, weak = weak_reference(content), True
        except TypeError:
            weak = False  # its type has no weak references: it is cached strongly
    _strong = entry._content  # dropped after the change
    _begin(core, slot)
    core.build_seconds += seconds - entry.build_seconds
    entry.build_seconds = seconds
    if (
        slot._alive
        and not core.sealed
        and slot.generation + core._generation == token
        and slot._entry is replacing
        and entry.state == HELD
        and not entry.eviction_serial
    ):
        if (
            not weak
            and core.cached >= bound
            and (strict or _oldest(core, NULL) != NULL)
        ):
            result = FULL
        else:
            warmset_lock(&entry.guard)
            entry._content = content
            warmset_unlock(&entry.guard)
            entry._weak = weak
            entry._uses = replacing is None
            if replacing is not None:
                _detach(core, replacing, RECYCLED, True)
                entry.last_used = _used_at(<PyObject*>replacing)
            _enter_cache(core, entry)
            if replacing is not None:
                warmset_store_number(&entry.stamp, warmset_load_number(&replacing.stamp))
                _sort(core, True)
            result = PUBLISHED
    _unlock(core)
    return result


cdef bint _settle_unclosable(Ring core, Entry entry) except -1:
    """Let the instance of a waiting entry go if it certainly has no way to be closed."""
    # The only text that it can be is "auto".
    if entry.closer is not None or (
        entry.options is not None and type(entry.options.closer) is not str
    ):
        return False
    content = entry.content  # dropped after the change, as these are
    _routes = _recent = None
    if content is None:
        return True  # somebody closes it
    if not _is_unclosable(content):
        return False
    _begin(core, entry.slot)
    if entry.state == WAITING and entry._content is content:
        warmset_lock(&entry.guard)
        entry._content = None
        warmset_unlock(&entry.guard)
        _routes, _recent = entry.routes, entry.recent
        entry.routes = None
        entry.recent = None
        _set_state(core, entry, NOTHING_TO_CLOSE)
    _unlock(core)
    return True


cdef bint _is_unclosable(object instance) except -1:
    """As `foreign.is_unclosable`."""
    cdef PyTypeObject* kind = Py_TYPE(<PyObject*>instance)
    if Py_TYPE(<PyObject*>kind) is not &PyType_Type or (
        (<TypeSlots*>kind).tp_getattro != <void*>PyObject_GenericGetAttr
    ):
        return False
    if _PyType_Lookup(kind, "__exit__") != NULL:
        return False
    if _PyType_Lookup(kind, "close") != NULL or _PyType_Lookup(kind, "aclose") != NULL:
        return False
    # Only the instance can have one now, and there is no code that these run.
    if (<TypeSlots*>kind).tp_dictoffset == 0:
        return True
    return getattr(instance, "close", None) is None and getattr(instance, "aclose", None) is None


cdef int _check_cause(int cause) except -1:
    if not 0 <= cause < CAUSES:
        raise ValueError(f"expected a cause of a removal, got {cause}")
    return 0


cdef int _check_owner(Ring core, Slot slot) except -1:
    """Refuse the slot of another registry, whose ring and counts are not these."""
    if slot.table != core._table:
        raise ValueError(f"the slot of {slot.name!r} belongs to another registry")
    return 0


cdef inline int _begin(Ring core, Slot slot) except -1:
    """Begin a change of a slot or its entry, which `_unlock` ends."""
    _check_owner(core, slot)
    _lock(core)
    return 0


cdef void _set_state(Ring core, Entry entry, int state) noexcept:
    """Count an entry in another state; under the lock."""
    cdef int before = entry.state
    if before != NEW:
        core._states[before] -= 1
    core._states[state] += 1
    entry.state = state
    # An interrupt may end who is to close an entry that waits for that.
    if state == WAITING:
        try:
            core.unclosed[entry] = None
        except MemoryError:
            pass  # closed all the same, unless an interrupt comes in
    elif before == WAITING:
        core.unclosed.pop(entry, None)


cdef void _enter_cache(Ring core, Entry entry) noexcept:
    """Put an entry into its empty slot, and as the newest one into the ring; under the lock."""
    cdef Slot slot = entry.slot
    _set_state(core, entry, WEAK if entry._weak else CACHED)
    _use(core, entry, entry.last_used)
    if entry._weak:
        core.weakly_kept += 1
    else:
        entry.deadline = entry.built_at + slot.age_limit
        _link(&entry.link, &core._root)
        warmset_add_size(&core.cached, 1)
    _set_entry(slot, entry)


cdef void _set_entry(Slot slot, Entry entry) noexcept:
    """Change the current entry of a slot; who calls keeps a reference to the one before."""
    warmset_fence()  # the entry is whole before a reader sees it
    warmset_lock(&slot.guard)
    slot._entry = entry
    warmset_unlock(&slot.guard)


cdef bint _detach(Ring core, Entry entry, int cause, bint even_held) noexcept:
    """
    Take an entry out of its slot and count that, if it is there and may be removed.

    Who calls keeps a reference to it, which outlives the change.
    """
    cdef Slot slot = entry.slot
    if slot._entry is not entry:
        return False
    if _holds_of(<PyObject*>entry) and cause <= MEMORY and not even_held:
        return False
    _set_entry(slot, None)
    if FREE_THREADED:
        # From here on no reader finds it; those that did have taken their holds after this.
        warmset_wait(core._table)
        if _holds_of(<PyObject*>entry) and cause <= MEMORY and not even_held:
            _set_entry(slot, entry)
            return False
        warmset_add_uses(
            &entry._uses, <long long>warmset_late_uses(core._table, <PyObject*>entry, True)
        )
        warmset_wait(core._table)  # for those that were adding uses themselves
    entry.cause = slot.last_cause = cause
    entry._held = entry.holds > 0
    if entry._weak:
        core.weakly_kept -= 1
    else:
        _unlink(&entry.link)
        warmset_add_size(&core.cached, -1)
        core.known_bytes -= max(entry.bytes, 0)
    _set_state(core, entry, NOTHING_TO_CLOSE if entry._weak else HELD if entry._held else WAITING)
    core._removal_serial += 1
    entry.eviction_serial = core._removal_serial
    core._removals[cause] += 1
    core.evictions += cause <= COLLECTED
    if core._removal_queue is not None:
        try:
            core._removal_queue.append(entry)
        except MemoryError:
            pass  # not reported, and closed all the same
    return True


cdef bint _expire(Ring core, Entry entry, double now) noexcept:
    """Remove an entry if it is past its age, or was idle for too long."""
    if not now <= entry.built_at + entry.slot.age_limit and not entry._weak:
        return _detach(core, entry, AGED, False)
    return _is_stale(<PyObject*>entry, now) and _detach(core, entry, IDLE, False)


cdef void _choose_clock(Ring core, double idle_limit, double age_limit) noexcept:
    """Take the precise clock where the tick of the coarse one is not small against a limit."""
    if warmset_tick() * TICKS_IN_TTL > min(idle_limit, age_limit):
        core._coarse = False


cdef inline double _now(Ring core) except? -1.0:
    if core._timer is None:
        return warmset_clock(core._coarse)
    return _injected_now(core)


cdef double _injected_now(Ring core) except? -1.0:
    # Apart, so that compilers insert `_now` into each hit.
    return core._timer()
