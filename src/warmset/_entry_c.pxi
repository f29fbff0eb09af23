# The compiled core's records: of a class name, and of a built instance. Twin of `_entry_py`.


cdef struct Link:
    Link* newer
    Link* older


cdef struct Addresses:
    int shift  # of the product of an address, to a place
    size_t mask
    PyObject* places[1]  # one more than the mask


@cython.final
cdef class Slot:
    """
    The registration of one class name: its target, options and limits, and its current entry.

    `generation` changes whenever a build that is in progress must not be published any more. `key`
    is what it is found by: the name, or the key of a family, which is displayed as the name.
    """

    # A hit reads these three: together, mostly in one line of the processor's cache.
    cdef readonly object key
    cdef Entry _entry
    cdef readonly double idle_limit  # seconds; inf: none
    cdef readonly double age_limit
    cdef readonly str name
    cdef object _target
    cdef object _options
    cdef PyObject** place  # in the address table, if it stands there
    cdef Table* table  # of its registry; NULL: it belongs to none
    cdef readonly long long generation
    cdef int guard
    cdef unsigned char _alive  # whether it is the slot of its name
    cdef unsigned char _pinned
    cdef unsigned char _sought  # whether a place in the address table was ever looked for
    cdef readonly signed char last_cause  # of the last removal of what it had

    def __cinit__(self, key):
        self.key = key
        self.name = key if type(key) is str else str(key)
        self.idle_limit = self.age_limit = INFINITY
        self.last_cause = NO_CAUSE

    @property
    def target(self):
        warmset_lock(&self.guard)
        target = self._target
        warmset_unlock(&self.guard)
        return target

    @property
    def options(self):
        warmset_lock(&self.guard)
        options = self._options
        warmset_unlock(&self.guard)
        return options

    @options.setter
    def options(self, options):
        before = self._options  # dropped after the change
        warmset_lock(&self.guard)
        self._options = options
        warmset_unlock(&self.guard)

    @property
    def entry(self):
        warmset_lock(&self.guard)
        entry = self._entry
        warmset_unlock(&self.guard)
        return entry

    @property
    def alive(self):
        return bool(self._alive)

    @property
    def pinned(self):
        return bool(self._pinned)

    @pinned.setter
    def pinned(self, bint pinned):
        self._pinned = pinned

    @property
    def path(self):
        """The dotted path of the target; None if there is no target."""
        target = self.target
        if target is None or type(target) is str:
            return target
        named = target if hasattr(target, "__qualname__") else type(target)
        return f"{named.__module__}.{named.__qualname__}"

    def __dealloc__(self):
        _hide(self)
        warmset_drop_table(self.table)

    def __repr__(self):
        return f"<slot {self.name!r}: {'empty' if self.entry is None else self.entry}>"


@cython.final
cdef class Entry:
    """
    The record of one built instance, from its constructor's return until it is closed or released.

    It belongs to one slot, whose current entry it is while it is cached. Options, and so the
    closer, are those that were in effect when it was built.
    """

    # What a hit reads and writes: with the reference count one line of the processor's cache.
    cdef object _content  # the instance, or a weak reference to it
    cdef readonly double deadline  # a look-up past it, or of a weak entry, takes the slow path
    cdef readonly double last_used
    cdef readonly number stamp  # orders uses at the same time
    cdef unsigned long long _uses
    cdef readonly unsigned int holds
    cdef unsigned char touched  # used since the ring was sorted
    cdef unsigned char _shared  # returned without a lease
    cdef unsigned char _weak
    cdef unsigned char _held  # held when it was removed
    # What else there is.
    cdef readonly signed char state
    cdef readonly signed char cause  # of its removal
    cdef int guard
    cdef Link link
    cdef readonly Slot slot
    cdef readonly object options
    cdef readonly object closer  # of this very instance: see `providers`
    cdef dict routes
    cdef Route recent  # of the routes, the one that was used last
    cdef readonly double built_at
    cdef readonly double build_seconds
    cdef readonly long long bytes  # -1: not known
    cdef readonly unsigned int serial  # of the build
    cdef readonly unsigned int eviction_serial  # of its removal

    def __cinit__(self, Slot slot not None):
        self.slot = slot
        self.options = slot.options
        self.deadline = -INFINITY
        self.bytes = -1
        self.state = NEW
        self.cause = NO_CAUSE

    @property
    def name(self):
        """The class name."""
        return self.slot.name

    @property
    def content(self):
        warmset_lock(&self.guard)
        content = self._content
        warmset_unlock(&self.guard)
        return content

    @property
    def instance(self):
        """The instance; None where it was closed, or is kept weakly and was collected."""
        content = self.content
        return content() if self._weak and content is not None else content

    @property
    def in_cache(self):
        """Whether look-ups find it."""
        return CACHED <= self.state <= WEAK

    @property
    def weak(self):
        return bool(self._weak)

    @property
    def shared(self):
        return bool(self._shared)

    @property
    def held(self):
        return bool(self._held)

    @property
    def uses(self):
        return warmset_load_uses(&self._uses) + warmset_late_uses(
            self.slot.table, <PyObject*>self, False
        )

    def __dealloc__(self):
        _unlink(&self.link)

    def __repr__(self):
        state = "new" if self.state == NEW else STATE_NAMES[self.state]
        return f"<entry of {self.name!r}: {state}, {self.uses} uses, {self.holds} holds>"


cdef Entry _probe = Entry(Slot(""))
cdef Py_ssize_t LINK_OFFSET = <char*>&_probe.link - <char*><PyObject*>_probe
_probe = None


cdef inline PyObject* _entry_at(Link* link) noexcept:
    return <PyObject*>(<char*>link - LINK_OFFSET)


# A guard lets nobody else copy or change the pointers of a record that Python code may read. It is
# held for the length of one assignment, which must not drop the last reference to what was there.


cdef inline bint _is_entry(PyObject* found) noexcept:
    return found != <PyObject*>None


cdef inline double _used_at(PyObject* entry) noexcept:
    return warmset_load_time(&(<Entry>entry).last_used)


cdef inline unsigned int _holds_of(PyObject* entry) noexcept:
    return warmset_load_holds(&(<Entry>entry).holds)


cdef inline void _unlink(Link* link) noexcept:
    if link.newer != NULL:
        link.newer.older = link.older
        link.older.newer = link.newer
        link.newer = link.older = NULL


cdef inline void _link(Link* link, Link* newer) noexcept:
    """Link at the older side of another one."""
    link.newer = newer
    link.older = newer.older
    newer.older.newer = link
    newer.older = link


# -- the address table ---------------------------------------------------------------------------

cdef inline PyObject** _place(Addresses* addresses, PyObject* name) noexcept:
    # The multiplier spreads addresses, which are multiples of 16, over the high bits (Knuth 6.4).
    # Folded first: objects of one pool are equally far apart, and multiples of some distances
    # (Fibonacci's numbers above all) have neighbouring products.
    cdef size_t folded = (<size_t>name >> 4) ^ (<size_t>name >> 12)
    return &addresses.places[(folded * MULTIPLIER) >> addresses.shift]


cdef PyObject** _place_to_fill(Addresses* addresses, PyObject* name) noexcept:
    """The first free place where a slot may stand; if all are taken, the one to displace."""
    cdef PyObject** place = _place(addresses, name)
    cdef size_t home = place - addresses.places, i
    for i in range(PLACES_TOGETHER):
        if addresses.places[home ^ i] == NULL:
            return &addresses.places[home ^ i]
    return place


cdef inline PyObject* _slot_at_address(Addresses* addresses, object class_name) noexcept:
    """The slot whose name is this very object, borrowed; NULL if it does not stand in the table."""
    cdef PyObject** place = _place(addresses, <PyObject*>class_name)
    cdef PyObject* found = <PyObject*>warmset_load_pointer(place)
    cdef size_t home, i
    if found != NULL and <PyObject*>(<Slot>found).key == <PyObject*>class_name:
        return found
    home = place - addresses.places
    for i in range(1, PLACES_TOGETHER):
        found = <PyObject*>warmset_load_pointer(&addresses.places[home ^ i])
        if found != NULL and <PyObject*>(<Slot>found).key == <PyObject*>class_name:
            return found
    return NULL


cdef Addresses* _new_addresses(size_t size) noexcept:
    cdef Addresses* addresses = <Addresses*>PyMem_Calloc(
        1, sizeof(Addresses) + (size - 1) * sizeof(PyObject*)
    )
    cdef int bits = 0
    if addresses != NULL:
        while (<size_t>1 << bits) < size:
            bits += 1
        addresses.mask = size - 1
        addresses.shift = 8 * sizeof(size_t) - bits
    return addresses


cdef inline void _hide(Slot slot) noexcept:
    """Take a slot out of the address table."""
    if slot.place != NULL:
        warmset_store_pointer(slot.place, NULL)
        warmset_store_pointer(&slot.place, NULL)


cdef void _empty_addresses(Addresses* addresses) noexcept:
    cdef size_t i
    for i in range(addresses.mask + 1):
        if addresses.places[i] != NULL:
            _hide(<Slot>addresses.places[i])


cdef void _move_slots(Addresses* before, Addresses* addresses) noexcept:
    """Show the slots of a table in a larger one."""
    cdef PyObject* slot
    cdef size_t i
    for i in range(before.mask + 1):
        slot = before.places[i]
        if slot != NULL:
            _hide(<Slot>slot)
            _show(addresses, <Slot>slot, False)


cdef void _show(Addresses* addresses, Slot slot, bint displace) noexcept:
    """Let a slot be found by the address of its name, in the place of another one if need be."""
    cdef PyObject** place = _place_to_fill(addresses, <PyObject*>slot.key)
    if slot.place != NULL:
        return
    if place[0] != NULL:
        if not displace:
            return
        warmset_store_pointer(&(<Slot>place[0]).place, NULL)
    warmset_store_pointer(place, <PyObject*>slot)
    warmset_store_pointer(&slot.place, place)


cdef inline PyObject* _load_entry(Slot slot) noexcept:
    """The current entry of a slot, borrowed; for readers without a lock."""
    cdef PyObject* entry = <PyObject*>slot._entry
    warmset_fence_after_load()
    return entry
