# The compiled recency ring: the cached entries of a registry in the order of their last use. Twin
# of `_ring_py`, which describes the algorithm.
#
#     root <-> oldest <-> ... <-> newest sorted <-> mark <-> touched <-> ... <-> touched <-> root
#
# Links are borrowed pointers: a slot owns its entry while that is linked, so a move touches no
# reference count. An entry unlinks itself when it dies, and a registry unlinks all when it dies
# first, so no pointer outlives its target.


@cython.no_gc_clear  # the collector breaks cycles at the dict
cdef class Ring:
    """Slots and entries of a registry, and the ring of those entries that are cached."""

    cdef dict _slots
    cdef readonly object slots  # a read-only view
    cdef dict _injected  # class name -> method name -> Injected
    cdef readonly object injected  # a read-only view
    cdef Addresses* _addresses  # of the names of slots; a hint, which may lack any of them
    cdef Table* _table  # of the stripes
    cdef Link _root
    cdef Link _mark
    cdef Mutex _mutex  # of all changes; with an interpreter lock there is none
    cdef object _timer
    cdef object __weakref__
    cdef bint _coarse
    cdef readonly bint sealed
    cdef bint _one_limit  # whether all slots have the idle limit below, and no age limit
    cdef double _idle_limit  # of slots that have no limits of their own
    cdef double _age_limit
    cdef number _stamp
    cdef long long _generation
    cdef readonly Py_ssize_t cached
    cdef readonly Py_ssize_t weakly_kept
    cdef readonly Py_ssize_t registered  # slots with a target
    cdef readonly long long known_bytes  # of the cached instances, as far as they are known
    cdef object _removal_queue  # of removed entries, for listeners
    cdef readonly dict unclosed  # entries that wait to be closed; an ordered set
    cdef public bint left_over  # whether an interrupt may have left entries unclosed
    cdef public long long builds
    cdef public long long evictions
    cdef readonly long long adopted
    cdef readonly double build_seconds
    cdef unsigned int _removal_serial
    cdef long long _removals[CAUSES]
    cdef long long _states[STATES]
    cdef long long _counts[COUNTERS]

    def __cinit__(self, *args, **kwargs):
        self._root.newer = self._root.older = &self._mark
        self._mark.newer = self._mark.older = &self._root
        self._slots = {}
        self.unclosed = {}
        self.slots = MappingProxyType(self._slots)
        self._injected = {}
        self.injected = MappingProxyType(self._injected)
        self._idle_limit = self._age_limit = INFINITY
        self._one_limit = True
        self._addresses = _new_addresses(ADDRESSES_AT_FIRST)
        self._table = warmset_new_table()
        if self._addresses == NULL or self._table == NULL:
            raise MemoryError

    def __dealloc__(self):
        # Slots and entries may outlive the registry, in the hands of leases; their links must not.
        while self._root.newer != &self._mark:
            _unlink(self._root.newer)
        while self._mark.newer != &self._root:
            _unlink(self._mark.newer)
        if self._addresses != NULL:
            _empty_addresses(self._addresses)
            PyMem_Free(self._addresses)
        warmset_drop_table(self._table)
        # A slot and its entry are a cycle: a dropped registry must not wait for the collector.
        if self._slots is not None:
            for slot in self._slots.values():
                if type(slot) is Slot:
                    (<Slot>slot)._entry = None

    def __sizeof__(self):
        """Bytes of the registry itself, and of the address table and the stripes, which it owns."""
        size = object.__sizeof__(self) + sizeof(Addresses)
        return size + self._addresses.mask * sizeof(PyObject*) + warmset_table_bytes(self._table)

    @property
    def removal_queue(self):
        return self._removal_queue

    @removal_queue.setter
    def removal_queue(self, queue):
        # It is appended to amid a change, where no foreign code may run.
        if queue is not None and type(queue) is not deque:
            raise TypeError(f"removal_queue must be a deque or None, got {queue!r}")
        self._removal_queue = queue

    # -- the ring --------------------------------------------------------------------------------

    def oldest(self, Entry spare=None):
        """Return the least recently used entry that is not held, pinned or spared."""
        cdef PyObject* found
        entry = None
        _lock(self)
        found = _oldest(self, <PyObject*>spare)
        if found != NULL:
            entry = <object>found
        _unlock(self)
        return entry

    def ring(self, *, bint from_oldest=False):
        """Return the cached entries in the order of their last use, the newest first."""
        cdef Link* link
        cdef Py_ssize_t i = 0, count
        cdef list entries
        while True:
            # No allocation while the ring is followed, for it may run the collector. The number is
            # read once: Cython evaluates it for the size of the list, and again as it fills it.
            count = warmset_load_size(&self.cached)
            entries = [None] * count
            _lock(self)
            if count == self.cached:
                break
            _unlock(self)
        _sort(self, True)
        link = self._root.newer if from_oldest else self._root.older
        while link != &self._root:
            if link != &self._mark:
                entries[i] = <object>_entry_at(link)
                i += 1
            link = link.newer if from_oldest else link.older
        _unlock(self)
        del entries[i:]  # entries die unseen where somebody else changed the dict of slots
        return entries

    def facts(self, double now, *, bint as_dicts=False):
        """Return what statistics tell of each cached entry, how many are held, and their bytes."""
        cdef Entry entry
        cdef double age, idle
        cdef long long known = 0
        cdef Py_ssize_t i, held = 0
        cdef bint measured = False
        cdef list rows = self.ring()
        for i in range(len(rows)):
            entry = rows[i]
            age, idle = max(0.0, now - entry.built_at), max(0.0, now - _used_at(<PyObject*>entry))
            held += entry.holds > 0
            size = None
            if entry.bytes >= 0:
                size = entry.bytes
                known += entry.bytes
                measured = True
            if as_dicts:
                rows[i] = {
                    "class_name": entry.slot.name,
                    "age_seconds": age,
                    "last_accessed_seconds_ago": idle,
                    "access_count": entry.uses,
                }
            else:
                rows[i] = (
                    entry.slot.name, age, idle, entry.uses, entry.build_seconds, entry.holds, size,
                    entry.slot.key,
                )
        return rows, held, known if measured else None

    def stale(self, double now):
        """Return the cached entries that are past their age, or were idle for too long."""
        cdef Link* link
        cdef PyObject* entry
        cdef list found = []
        cdef bint in_order  # whether those in front of the mark expire in their order
        if self._one_limit and self._idle_limit == INFINITY:
            return found
        _lock(self)
        try:
            in_order = self._one_limit
            link = self._root.newer
            while link != &self._root:
                if link == &self._mark:
                    in_order = False
                else:
                    entry = _entry_at(link)
                    if _is_stale(entry, now):
                        found.append(<object>entry)
                    elif in_order and not (
                        warmset_load_byte(&(<Entry>entry).touched)
                        or _holds_of(entry)
                        or (<Entry>entry).slot._pinned
                    ):
                        # All others in front of the mark were used later.
                        in_order = False
                        link = &self._mark
                link = link.newer
        finally:
            _unlock(self)
        return found

    def is_stale(self, Entry entry not None, double now):
        """Whether an entry is past its age, or was idle for too long."""
        return _is_stale(<PyObject*>entry, now)

    # -- sizes and counters ----------------------------------------------------------------------

    def set_bytes(self, Entry entry not None, long long size):
        """Note how big an instance is, -1 if that is not known; whether it is still cached."""
        cdef bint there
        _begin(self, entry.slot)
        there = entry.state == CACHED or entry.state == WEAK
        if there:
            if entry.state == CACHED:
                self.known_bytes += max(size, 0) - max(entry.bytes, 0)
            entry.bytes = size
        _unlock(self)
        return there

    def count(self, int which):
        """Count one more of what `codes` names."""
        if not 0 <= which < COUNTERS:
            raise IndexError(which)
        warmset_add_number(&self._counts[which], 1)

    def reset_after_fork(self):
        """
        Reset what belongs to threads that do not exist in the child.

        With an interpreter lock, there is no lock here that another thread could hold. Without one,
        all threads stood still at the fork, so none was reading; and one that was in the middle of
        a change waited for a lock of the interpreter, between two whole steps of it.
        """
        warmset_keep_own_number()
        warmset_mutex_reset(&self._mutex)


cdef inline void _lock(Ring core) noexcept:
    """Begin a change: until `_unlock` no Python code may run, here or in what is dropped."""
    if FREE_THREADED:
        warmset_mutex_lock(&core._mutex)


cdef inline void _unlock(Ring core) noexcept:
    if FREE_THREADED:
        warmset_mutex_unlock(&core._mutex)


cdef number _next_stamp(Ring core, double now) noexcept:
    """A stamp above all others; under the lock."""
    cdef Stripe* stripe
    if FREE_THREADED:
        # As `_stamp_use` gives them, so that what one thread does stays in its order.
        core._stamp = max(core._stamp + 1, _nanoseconds(core, now))
        stripe = warmset_own(core._table)
        if stripe != NULL:
            core._stamp = max(core._stamp, stripe.stamp + 1)
            stripe.stamp = core._stamp
    else:
        core._stamp += 1
    return core._stamp


cdef inline number _nanoseconds(Ring core, double now) noexcept:
    cdef double time = now if core._timer is not None else warmset_clock(False)
    return <number>(time * 1e9) if time > 0.0 else 0


cdef inline void _use(Ring core, Entry entry, double now) noexcept:
    """Note that an entry was used now; under the lock."""
    warmset_store_time(&entry.last_used, now)
    warmset_store_number(&entry.stamp, _next_stamp(core, now))
    warmset_store_byte(&entry.touched, True)


cdef bint _is_stale(PyObject* found, double now) noexcept:
    cdef PyObject* slot = <PyObject*>(<Entry>found).slot
    # Written so that a clock that returns NaN makes it stale.
    if not now <= (<Entry>found).built_at + (<Slot>slot).age_limit:
        return not (<Entry>found)._weak
    return (
        not now - _used_at(found) <= (<Slot>slot).idle_limit
        and not _holds_of(found)
        and not (<Slot>slot)._pinned
    )


cdef void _sort_if_older(Ring core, double last_used) noexcept:
    """Restore the order after an entry got this last use and counts as touched."""
    if core._mark.older != &core._root and last_used < _used_at(_entry_at(core._mark.older)):
        _sort(core, True)


cdef PyObject* _oldest(Ring core, PyObject* spare) noexcept:
    """The least recently used entry that is not held, pinned or spared, borrowed; or NULL."""
    cdef Link* link
    cdef Link* newer
    cdef PyObject* entry
    cdef bint is_sorted = False
    while True:
        link = core._root.newer
        while link != &core._mark:
            newer = link.newer
            entry = _entry_at(link)
            if not is_sorted and warmset_load_byte(&(<Entry>entry).touched):
                _unlink(link)
                _link(link, &core._root)
            elif (
                not _holds_of(entry)
                and not (<Slot><PyObject*>(<Entry>entry).slot)._pinned
                and entry != spare
            ):
                return entry
            link = newer
        if is_sorted or core._mark.newer == &core._root:
            return NULL
        _sort(core, False)
        is_sorted = True


cdef void _sort(Ring core, bint whole) noexcept:
    """
    Sort what is behind the mark, or the whole ring, and move it in front of the mark.

    A natural merge sort of the links: runs that are in order already are found and merged. O(n) for
    entries that were built one after another, O(n log n) at most.
    """
    cdef Link* runs[64]  # at i what 2^i runs were merged to, or nothing; linked by `older`
    cdef Link* link
    cdef Link* run
    cdef Link* end
    cdef Link* following
    cdef number stamp
    cdef int i, used = 0
    link = core._root.newer if whole and core._root.newer != &core._mark else core._mark.newer
    if link == &core._root:
        return
    # Taken out as one list, linked by `newer`.
    if whole and core._root.newer != &core._mark:
        end = core._mark.older
        if core._mark.newer != &core._root:
            end.newer = core._mark.newer
            end = core._root.older
    else:
        end = core._root.older
    end.newer = NULL
    if whole:
        core._root.newer = &core._mark
        core._mark.older = &core._root
    core._mark.newer = &core._root
    core._root.older = &core._mark
    following = link
    while following != NULL:
        # Before its time is read: it may be used from here on.
        warmset_store_byte(&(<Entry>_entry_at(following)).touched, False)
        following = following.newer
    warmset_fence()
    while link != NULL:
        run = end = link
        following = link.newer
        while following != NULL and not _before(following, end):
            end = following
            following = following.newer
        end.newer = NULL
        link = following
        i = 0
        while i < used and runs[i] != NULL:
            run = _merged(runs[i], run)
            runs[i] = NULL
            i += 1
        if i == used:
            used += 1
        runs[i] = run
    run = NULL
    for i in range(used):
        if runs[i] != NULL:
            run = _merged(runs[i], run)
    while run != NULL:
        following = run.newer
        stamp = warmset_load_number(&(<Entry>_entry_at(run)).stamp)
        if stamp > core._stamp:
            warmset_store_number(&core._stamp, stamp)
        _link(run, &core._mark)
        run = following


cdef inline bint _before(Link* one, Link* other) noexcept:
    cdef PyObject* first = _entry_at(one)
    cdef PyObject* second = _entry_at(other)
    if _used_at(first) != _used_at(second):
        return _used_at(first) < _used_at(second)
    return warmset_load_number(&(<Entry>first).stamp) < warmset_load_number(
        &(<Entry>second).stamp
    )


cdef Link* _merged(Link* one, Link* other) noexcept:
    """Merge two lists; of equals, those of the first come first."""
    cdef Link* merged = NULL
    cdef Link** end = &merged
    while one != NULL and other != NULL:
        if _before(other, one):
            end[0] = other
            other = other.newer
        else:
            end[0] = one
            one = one.newer
        end = &end[0].newer
    end[0] = one if one != NULL else other
    return merged
