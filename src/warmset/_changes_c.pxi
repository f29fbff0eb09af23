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
        PyUnicode_InternInPlace(&name)
        class_name = _owned(name)
        fresh = Slot(class_name)
        if FREE_THREADED:
            fresh.table = self._table
            warmset_add_size(&self._table.owners, 1)
        _lock(self)
        try:
            slot = self._slots.setdefault(class_name, fresh)
            before = slot._target, slot._options  # dropped after the change
            if target is not None or not slot._alive:
                _guard(&slot.guard)
                slot._target = target
                slot._options = options
                _unguard(&slot.guard)
                self.registered += (target is not None) - (before[0] is not None)
            if not slot._alive:
                slot._alive = True
                slot.injected = class_name in self._injected
                slot.idle_limit = self._idle_limit
                slot.age_limit = self._age_limit
        finally:
            _unlock(self)
        return slot, before[0]

    def drop_slot(self, Slot slot not None):
        """Forget a slot, if it is the one of its name; nothing is published in it any more."""
        _lock(self)
        try:
            dropped = bool(slot._alive)
            if dropped:
                slot._alive = False
                slot.generation += 1
                _hide(slot)
                if FREE_THREADED:
                    warmset_wait(self._table)
                self.registered -= slot._target is not None
                del self._slots[slot.name]
        finally:
            _unlock(self)
        return dropped

    def token(self, Slot slot not None):
        """Return a number that changes when the slot or the registry is cleared: see `publish`."""
        cdef long long token
        _lock(self)
        token = slot.generation + self._generation
        _unlock(self)
        return token

    def invalidate(self, Slot slot not None):
        """Let no build of a slot that is in progress be published."""
        _lock(self)
        slot.generation += 1
        _unlock(self)

    def seal(self):
        """Publish nothing any more: the registry is being closed."""
        _lock(self)
        self._sealed = True
        _unlock(self)

    def set_limits(self, Slot slot not None, idle_seconds, age_seconds):
        """Give a slot limits of its own; None takes the registry's, inf is none."""
        cdef double idle = self._idle_limit if idle_seconds is None else idle_seconds
        cdef double age = self._age_limit if age_seconds is None else age_seconds
        cdef PyObject* entry
        _lock(self)
        if idle != self._idle_limit or age != INFINITY:
            self._one_limit = False
        slot.idle_limit = idle
        slot.age_limit = age
        entry = <PyObject*>slot._entry
        if _is_entry(entry) and not (<Entry>entry)._weak:
            warmset_store_time(&(<Entry>entry).deadline, (<Entry>entry).built_at + age)
        _choose_clock(self, idle, age)
        _unlock(self)

    # -- entries: construction and publication ---------------------------------------------------

    def construct(self, Slot slot not None, make):
        """
        Run a constructor, and put what it returns straight into a new entry, which is held once.

        Args:
            slot: The slot; the entry keeps its options.
            make: Takes the slot and returns the instance.

        Returns:
            The entry; None if the instance is None.
        """
        cdef Entry entry = Entry(slot)
        entry._content = make(slot)
        if entry._content is None:
            return None
        # A lease may be released by another thread than the one that took it.
        warmset_share_reference(<PyObject*>entry._content)
        _lock(self)
        self.builds += 1
        entry.serial = <unsigned int>(self.builds + self.adopted)
        entry.holds = 1
        entry._state = HELD
        self._states[HELD] += 1
        _unlock(self)
        try:
            entry.built_at = entry.last_used = _now(self)
        except BaseException:
            self.release(entry, None)
            raise
        return entry

    def publish(
        self,
        Entry entry not None,
        long long token,
        double seconds,
        *,
        most=None,
        Entry replacing=None,
    ):
        """
        Cache an entry that `construct` made, unless its name was cleared since `token`.

        Args:
            entry: The entry.
            token: What `token` returned when the build began.
            seconds: What the build took.
            most: How many instances may be cached after it; None: any number.
            replacing: What has to be in the slot. It is removed as RECYCLED, and the new entry
                takes its place in the ring and its last use. None: the slot has to be empty.

        Returns:
            PUBLISHED, STALE or FULL.
        """
        cdef Slot slot = entry.slot
        cdef bint weak = False
        cdef int result = STALE
        cdef Py_ssize_t bound = PY_SSIZE_T_MAX if most is None else most
        cdef list removed = []
        content = entry._content
        if self.weak_mode and replacing is None:
            try:
                content, weak = weak_reference(content), True
            except TypeError:
                weak = False  # its type has no weak references: it is cached strongly
        strong = entry._content  # dropped after the change
        _lock(self)
        try:
            self.build_seconds += seconds - entry.build_seconds
            entry.build_seconds = seconds
            if (
                slot._alive
                and not self._sealed
                and slot.generation + self._generation == token
                and slot._entry is replacing
                and entry._state == HELD
            ):
                if replacing is not None:
                    _replace(self, replacing, entry, removed)
                    result = PUBLISHED
                elif not weak and self.cached >= bound and _oldest(self, NULL) != NULL:
                    result = FULL
                else:
                    _guard(&entry.guard)
                    entry._content = content
                    _unguard(&entry.guard)
                    entry._weak = weak
                    entry._uses = 1
                    _enter_cache(self, entry, HELD)
                    result = PUBLISHED
        finally:
            _unlock(self)
        return result

    def adopt(
        self, Slot slot not None, content, *, bint weak, double built_at, double last_used,
        long long uses,
    ):
        """
        Cache an instance that was not built here, in an empty slot.

        Args:
            slot: The slot.
            content: The instance, or a weak reference to it.
            weak: Whether it is a weak reference.
            built_at: By the registry's clock.
            last_used: By the registry's clock; it decides on the place in the ring.
            uses: How often it was used.

        Returns:
            The entry; None if the slot is not empty or was dropped, or the registry is closed.
        """
        cdef Entry entry = Entry(slot)
        entry._content = content
        warmset_share_reference(<PyObject*>content)
        entry._weak = weak
        entry.built_at = built_at
        entry.last_used = last_used
        entry._uses = uses
        entry._shared = True
        _lock(self)
        if slot._alive and not self._sealed and slot._entry is None:
            slot.generation += 1
            self.adopted += 1
            entry.serial = <unsigned int>(self.builds + self.adopted)
            _enter_cache(self, entry, NEW)
            _sort_if_older(self, last_used)
        _unlock(self)
        return None if entry._state == NEW else entry

    def amend(self, Entry entry not None, double built_at, double last_used, long long uses):
        """Rewrite the times and uses of a cached entry, and move it to where they belong."""
        _lock(self)
        if entry._state == CACHED:
            if FREE_THREADED:
                warmset_late_uses(self._table, <PyObject*>entry, True)
            entry.built_at = built_at
            entry._uses = uses
            warmset_store_time(&entry.deadline, built_at + entry.slot.age_limit)
            _use(self, entry, last_used)
            _sort_if_older(self, last_used)
        _unlock(self)

    # -- entries: removal ------------------------------------------------------------------------

    def remove(self, Entry entry not None, int cause, *, double more_than=-1, bint even_held=False):
        """
        Remove an entry from the cache, if it is there.

        Args:
            entry: The entry.
            cause: Up to MEMORY, a held or pinned entry stays.
            more_than: For SIZE only while more than so many instances are cached, for MEMORY only
                while these are known to have more than so many bytes.
            even_held: Whether it is removed although it is held.

        Returns:
            Whether it was removed; then the caller passes it to `handle_removed`.
        """
        cdef list removed = []
        cdef double much
        cdef bint found = False
        _lock(self)
        try:
            much = <double>self.known_bytes if cause == MEMORY else <double>self.cached
            if much > more_than and not (cause <= MEMORY and entry.slot._pinned):
                found = _detach(self, entry, cause, removed, even_held)
        finally:
            _unlock(self)
        return found

    def take_all(self, int cause):
        """Remove every entry, and let no build in progress be published; what was removed."""
        cdef Slot slot
        cdef Link* link
        cdef list removed = []
        _lock(self)
        try:
            self._generation += 1
            _sort(self, True)
            link = self._root.newer
            while link != &self._mark:
                _detach(self, <Entry>_entry_at(link), cause, removed, True)
                link = self._root.newer
        finally:
            _unlock(self)
        if self.weakly_kept:
            for slot in list(self._slots.values()):
                entry = slot.entry
                if entry is not None and entry.weak:
                    _lock(self)
                    try:
                        _detach(self, entry, cause, removed, True)
                    finally:
                        _unlock(self)
        return removed

    def expire(self, Entry entry not None, double now):
        """Remove an entry if it is stale; whether it was removed, as `remove`."""
        cdef list removed = []
        cdef bint found
        _lock(self)
        try:
            found = _expire(self, entry, now, removed)
        finally:
            _unlock(self)
        return found

    def abandon(self, Entry entry not None):
        """Take an entry out of the cache and leave it alone: after a fork it is the parent's."""
        cdef list removed = []
        cdef bint found
        _lock(self)
        try:
            found = entry._state == HELD or _detach(self, entry, DISCARDED, removed, True)
            if found:
                self._states[entry._state] -= 1
                self._states[PARENTS] += 1
                entry._state = PARENTS
        finally:
            _unlock(self)
        return found

    # -- entries: closing ------------------------------------------------------------------------

    def claim(self, Entry entry not None):
        """Take the instance of a waiting entry, for its closer; an empty list if it was taken."""
        cdef list box = [None]
        cdef bint found
        routes = recent = None
        _lock(self)
        found = entry._state == WAITING and entry._content is not None
        if found:
            box[0] = entry._content
            _guard(&entry.guard)
            entry._content = None
            _unguard(&entry.guard)
            routes, recent = entry.routes, entry.recent  # dropped after the change
            entry.routes = None
            entry.recent = None
        _unlock(self)
        return box if found else []

    def settle(self, Entry entry not None, int state):
        """Give a claimed entry its final state."""
        if not WAITING < state < STATES:
            raise ValueError(f"expected a final state, got {state}")
        _lock(self)
        if entry._state == WAITING:
            entry._state = state
            self._states[WAITING] -= 1
            self._states[state] += 1
        _unlock(self)

    def is_alone(self, list box not None):
        """Whether nothing but this list refers to what is in it, as far as that can be known."""
        return len(box) == 1 and warmset_is_alone(PyList_GET_ITEM(box, 0))


cdef void _enter_cache(Ring core, Entry entry, int before) noexcept:
    """Put an entry into its empty slot, and as the newest one into the ring; under the lock."""
    cdef Slot slot = entry.slot
    entry._state = WEAK if entry._weak else CACHED
    if before != NEW:
        core._states[before] -= 1
    core._states[entry._state] += 1
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
    if FREE_THREADED:
        warmset_fence()  # the entry is whole before a reader sees it
    _guard(&slot.guard)
    slot._entry = entry
    _unguard(&slot.guard)


cdef bint _detach(Ring core, Entry entry, int cause, list removed, bint even_held) except -1:
    """
    Take an entry out of its slot and count that, if it is there and may be removed.

    It goes to `removed`, whose reference outlives the change.
    """
    cdef Slot slot = entry.slot
    cdef int state
    if slot._entry is not entry:
        return False
    if _holds_of(<PyObject*>entry) and cause <= MEMORY and not even_held:
        return False
    removed.append(entry)
    _set_entry(slot, None)
    if FREE_THREADED:
        # From here on no reader finds it; those that did have taken their holds after this.
        warmset_wait(core._table)
        if _holds_of(<PyObject*>entry) and cause <= MEMORY and not even_held:
            _set_entry(slot, entry)
            removed.pop()
            return False
        warmset_add_uses(
            &entry._uses, <long long>warmset_late_uses(core._table, <PyObject*>entry, True)
        )
        warmset_wait(core._table)  # for those that were adding uses themselves
    _leave_cache(core, entry, cause)
    return True


cdef void _leave_cache(Ring core, Entry entry, int cause) noexcept:
    """Account for an entry that is in no slot any more."""
    cdef int state
    core._states[entry._state] -= 1
    if entry._weak:
        state = NOTHING_TO_CLOSE
        core.weakly_kept -= 1
    else:
        state = HELD if entry.holds > 0 else WAITING
        _unlink(&entry.link)
        warmset_add_size(&core.cached, -1)
        core.known_bytes -= max(entry.bytes, 0)
    entry._state = state
    core._states[state] += 1
    entry._cause = cause
    entry._held = entry.holds > 0
    core._removal_serial += 1
    entry.eviction_serial = core._removal_serial
    core._removals[cause] += 1
    if cause <= COLLECTED:
        core.evictions += 1
    if core.removal_queue is not None:
        try:
            core.removal_queue.append(entry)
        except MemoryError:
            pass  # not reported, and closed all the same


cdef int _replace(Ring core, Entry old, Entry entry, list removed) except -1:
    """Put an entry into the place of another one, which is recycled."""
    cdef Slot slot = entry.slot
    cdef Link* newer
    removed.append(old)
    entry.deadline = entry.built_at + slot.age_limit
    entry.last_used = _used_at(<PyObject*>old)
    entry.stamp = warmset_load_number(&old.stamp)
    entry.touched = warmset_load_byte(&old.touched)
    newer = old.link.newer
    _set_entry(slot, entry)
    if FREE_THREADED:
        warmset_wait(core._table)
        warmset_add_uses(
            &old._uses, <long long>warmset_late_uses(core._table, <PyObject*>old, True)
        )
        warmset_wait(core._table)
    entry._state = CACHED
    core._states[HELD] -= 1
    core._states[CACHED] += 1
    _link(&entry.link, newer)
    warmset_add_size(&core.cached, 1)
    _leave_cache(core, old, RECYCLED)
    return 0


cdef bint _expire(Ring core, Entry entry, double now, list removed) except -1:
    """Remove an entry if it is past its age, or was idle for too long."""
    if not now <= entry.deadline and not entry._weak:
        return _detach(core, entry, AGED, removed, False)
    if _is_stale(<PyObject*>entry, now):
        return _detach(core, entry, IDLE, removed, False)
    return False


cdef void _choose_clock(Ring core, double idle_limit, double age_limit) noexcept:
    """Take the precise clock where the tick of the coarse one is not small against a limit."""
    if warmset_tick() * TICKS_IN_TTL > min(idle_limit, age_limit):
        core._coarse = False


cdef inline double _now(Ring core) except? -1.0:
    if core._timer is None:
        return warmset_clock(core._coarse)
    return core._timer()
