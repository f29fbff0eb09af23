# cython: language_level=3, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic, freethreading_compatible=True
"""
The compiled core: slots, recency ring, idle TTL, counters, leases, handles and `execute`.

It is the twin of `_core_py`, which is the reference for behaviour.

    _front: from the address of the name to the slot; _slots, a dict, where that does not know it

      "Tagger" ---> Slot: instance, last_used, uses, holds, epoch
                     |
                    link ------ newer ---->  <---- older ------ link
                     :                                            :
      root.newer --> oldest  <->  ...  <->  second newest  <->  newest <-- root.older
        (root is a bare link inside the registry; an empty ring is the root linked to itself)

Links are borrowed C pointers: the dict owns the slots, so a relink touches no reference count, and
a million slots are torn down by the dict without recursion. A slot unlinks itself when it dies,
and a registry unlinks all when it dies first, so no pointer outlives what it points at.

The front is a table of borrowed slots, each at the place that the address of its name gives. A
slot's name is interned, and so is a name that stands in the code of a caller: mostly they are the
same object, and the slot is found without hashing, comparing or a call. It is a hint and no more:
what is found there is used only if its name is that very object, slots push one another out, and a
slot takes itself out when it dies or is forgotten.

Why there is no lock
    With the interpreter lock held, only a call into Python can let another thread, a finaliser or a
    signal handler in. Each change below is plain C from its first store to its last: no call into
    Python, no new container (the collector may run there before 3.12), no reference dropped. What
    leaves a slot is appended to a list that was made before the change, and dropped after it.

What a free-threaded interpreter changes
    There a mutex of the registry makes the changes whole: each is between `_lock` and `_unlock`,
    where no Python code runs. It is no critical section, since that is given up where its thread
    waits for a lock of the interpreter, as for that of a dict, which would be amid a change.

    A hit takes no lock (`_readers.h`). It reads the slot while it is open, and notes its use in the
    slot and in the stripe of its thread: a stamp, and the slot in a list of those that are out of
    order. `_settle` puts these in their places in the ring, by their times and stamps, before the
    ring is looked at or added to. So the order is exact for what one thread does, and for several
    as exact as the clock. To take an instance out, its slot is shut, and readers are waited for.

        hit:    enter - front - slot open? fresh? - instance - stamp, touch - leave
        taken:  lock ( shut - wait for readers - settle - take out ) unlock - close what left

Why a look-up runs no foreign code
    Names are exact `str`, so hashing and comparing them is C. An injected timer is foreign: it is
    read before anything else.
"""

cimport cython
from cpython.dict cimport PyDict_GetItemWithError
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF, Py_DECREF
from libc.math cimport INFINITY

from operator import itemgetter
from types import BuiltinMethodType
from weakref import ref as weak_reference

from . import _fork
from .errors import MethodNotFoundError, MethodRegistryError
from .resolver import check_name

__all__ = ["ExecutorCore", "Handle", "Lease", "RegistryCore", "Slot"]


cdef extern from *:
    """
    #include <time.h>
    /* Exported by all versions, declared for others by some. */
    PyAPI_FUNC(int) _PyObject_GetMethod(PyObject *, PyObject *, PyObject **);
    #if defined(_WIN32)
      #include <windows.h>
      static double warmset_clock(int coarse) {
          LARGE_INTEGER now, frequency;
          (void)coarse;
          QueryPerformanceCounter(&now);
          QueryPerformanceFrequency(&frequency);
          return (double)now.QuadPart / (double)frequency.QuadPart;
      }
      static double warmset_tick(void) { return 0.0; }
    #else
      #if defined(CLOCK_MONOTONIC_COARSE)
        #define WARMSET_COARSE CLOCK_MONOTONIC_COARSE
      #else
        #define WARMSET_COARSE CLOCK_MONOTONIC
      #endif
      static double warmset_clock(int coarse) {
          struct timespec now;
          clock_gettime(coarse ? WARMSET_COARSE : CLOCK_MONOTONIC, &now);
          return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
      }
      static double warmset_tick(void) {
          struct timespec tick;
          if (clock_getres(WARMSET_COARSE, &tick) != 0) return 1.0;
          return (double)tick.tv_sec + 1e-9 * (double)tick.tv_nsec;
      }
    #endif
    """
    double warmset_clock(int coarse) noexcept nogil
    double warmset_tick() noexcept nogil

cdef extern from "_readers.h":
    const bint FREE_THREADED "WARMSET_FREE_THREADED"
    ctypedef unsigned long long number "uint64_t"
    ctypedef char TracePlace "warmset_trace_place"
    ctypedef struct Mutex "warmset_mutex":
        pass
    void warmset_mutex_lock(Mutex*) noexcept
    void warmset_mutex_unlock(Mutex*) noexcept
    void warmset_mutex_reset(Mutex*) noexcept
    void warmset_share_reference(PyObject*) noexcept
    bint warmset_is_alone(PyObject*) noexcept
    ctypedef struct Trace "warmset_trace":
        Trace* next
        Table* table
        number stamp
        int guard
        unsigned char touched
        unsigned char open
    ctypedef struct Hold "warmset_hold":
        Hold* newer
        Hold* older
        PyObject* slot
        unsigned long thread
        double since
    ctypedef struct Stripe "warmset_stripe":
        number stamp
        number hits
        number before
        void* last
        Hold holds
        int lock
    ctypedef struct Table "warmset_table":
        Stripe** stripes
        Py_ssize_t used
        Py_ssize_t owners
    int warmset_prepare_seats() noexcept
    void warmset_keep_own_seat() noexcept
    Table* warmset_new_table() noexcept
    void warmset_drop_table(Table*) noexcept
    Py_ssize_t warmset_table_bytes(Table*) noexcept
    void warmset_sit_down(Table*) noexcept
    Stripe* warmset_own(Table*) noexcept
    Stripe* warmset_enter(Table*) noexcept
    void warmset_leave(Stripe*) noexcept
    void warmset_wait(Table*) noexcept
    void warmset_touch(Stripe*, Trace*) noexcept
    Trace* warmset_gather(Table*) noexcept
    number warmset_hits(Table*) noexcept
    number warmset_late_uses(Table*, void*, bint) noexcept
    void warmset_link_hold(Table*, Hold*) noexcept
    void warmset_unlink_hold(Hold*) noexcept
    void warmset_fence() noexcept
    void warmset_lock(int*) noexcept
    void warmset_unlock(int*) noexcept
    void* warmset_load_pointer(void*) noexcept
    void warmset_store_pointer(void*, void*) noexcept
    void* warmset_exchange_pointer(void*, void*) noexcept
    unsigned char warmset_load_byte(unsigned char*) noexcept
    void warmset_store_byte(unsigned char*, unsigned char) noexcept
    number warmset_load_number(number*) noexcept
    void warmset_store_number(number*, number) noexcept
    unsigned long long warmset_load_uses "warmset_load_number" (unsigned long long*) noexcept
    long long warmset_load_tally "warmset_load_number" (long long*) noexcept
    void warmset_add_number(long long*, long long) noexcept
    void warmset_add_uses "warmset_add_number" (unsigned long long*, long long) noexcept
    void warmset_add_holds(unsigned int*, int) noexcept
    Py_ssize_t warmset_load_size(Py_ssize_t*) noexcept
    void warmset_add_size(Py_ssize_t*, Py_ssize_t) noexcept
    bint warmset_swap_state(int*, int, int) noexcept
    object _owned "warmset_owned"(PyObject*)
    object _item "warmset_item"(PyObject*, PyObject*)
    PyObject* warmset_slot_named(PyObject*, PyObject*) noexcept
    double warmset_load_time(double*) noexcept
    void warmset_store_time(double*, double) noexcept
    unsigned int warmset_load_holds(unsigned int*) noexcept
    void warmset_fence_after_load() noexcept

cdef extern from "Python.h":
    ctypedef struct PyMethodDef:
        const char* ml_name
        void* ml_meth
        int ml_flags
        const char* ml_doc
    ctypedef struct TypeSlots "PyTypeObject":
        Py_ssize_t tp_vectorcall_offset
        unsigned long tp_flags
        void* tp_call
        PyObject* tp_dict
    const int METH_FASTCALL
    const int METH_KEYWORDS
    const unsigned long Py_TPFLAGS_HAVE_VECTORCALL
    const size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    object PyVectorcall_Call(object, object, object)
    Py_ssize_t PyVectorcall_NARGS(size_t)
    PyObject* PyObject_Vectorcall(PyObject*, PyObject* const*, size_t, PyObject*)
    int _PyObject_GetMethod(PyObject*, PyObject*, PyObject**)
    int PyFunction_Check(PyObject*)
    object PyMethod_New(PyObject*, PyObject*)
    void PyUnicode_InternInPlace(PyObject**)
    PyObject* PyObject_GetAttr(PyObject*, PyObject*)
    int PyCallable_Check(PyObject*)
    PyObject* PyErr_NoMemory() noexcept
    int PyGen_CheckExact(PyObject*)
    int PyCoro_CheckExact(PyObject*)
    int PyAsyncGen_CheckExact(PyObject*)
    int PyMethod_Check(PyObject*)
    PyObject* PyMethod_GET_FUNCTION(PyObject*)
    PyObject* PyMethod_GET_SELF(PyObject*)
    PyObject* PyTuple_GET_ITEM(PyObject*, Py_ssize_t)
    Py_ssize_t PyTuple_GET_SIZE(PyObject*)
    PyTypeObject* Py_TYPE(PyObject*)
    void _incref "Py_INCREF"(PyObject*)  # of a borrowed pointer, which Cython would count twice
    void _decref "Py_DECREF"(PyObject*)
    object PyDescr_NewMethod(PyTypeObject*, PyMethodDef*)
    void PyType_Modified(PyTypeObject*)
    unsigned long PyThread_get_thread_ident()
    int Py_EnterRecursiveCall(const char*)
    void Py_LeaveRecursiveCall()
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject*)
    PyObject* PyList_GET_ITEM(object, Py_ssize_t)


cdef enum:
    EMPTY = 0
    STRONG = 1
    WEAK = 2

cdef enum:  # values of `events.RemovalCause`; those up to COLLECTED are evictions
    IDLE = 0
    SIZE = 1
    MEMORY = 2  # up to here nothing leaves that is held
    AGED = 3
    RECYCLED = 4
    COLLECTED = 5
    DISCARDED = 7
    REPLACED = 8
    CAUSES = 10

cdef enum:
    TALLIES = 6  # names in `_tallies`

cdef enum:  # states of a lease
    FREE = 0
    ENTERING = 1
    HELD = 2

cdef enum:
    STACK = 8  # arguments that a call passes on without an allocation
    FRONT_AT_FIRST = 64  # places in the front; it grows with the number of slots
    FRONT_AT_MOST = 16384

# The coarse clock is taken where its tick (1 to 4 ms) is at most this part of the TTL.
cdef double TICKS_IN_TTL = 250.0


if warmset_prepare_seats() < 0:
    raise MemoryError("the system gives no more thread-specific keys")


# -- slots and the ring --------------------------------------------------------------------------

cdef struct Link:
    Link* newer
    Link* older


cdef struct Front:
    size_t mask
    PyObject* places[1]  # one more than the mask


@cython.final
cdef class Slot:
    """
    The record of one class name; instances move in and out of it.

    `epoch` names what the slot holds: a lease or a build that remembers it can tell whether this
    is still there. Each departure gives the slot an epoch that it never had; an instance that is
    revived brings its own back. `moves` counts both.
    """

    cdef readonly str name
    cdef object _path
    cdef object _instance
    cdef dict routes
    cdef Route recent  # of the routes, the one that was used last
    cdef Link link
    cdef PyObject** place  # in the front, if it stands there
    cdef readonly double last_used
    cdef readonly double built_at
    cdef readonly double build_seconds
    cdef readonly double idle_limit  # seconds; inf: none
    cdef readonly double age_limit
    cdef readonly long long bytes  # of the instance; -1: not known
    cdef list _leaving  # taken out while held; closed at their last release
    cdef unsigned int serial  # of the build: which came before which
    cdef readonly unsigned int epoch
    cdef unsigned int moves
    cdef readonly unsigned int holds
    cdef unsigned long long _uses
    cdef readonly unsigned char kind
    cdef unsigned char _alive  # whether it is the slot of its name
    cdef unsigned char shared  # whether it was handed out without a lease
    cdef unsigned char _pinned
    cdef TracePlace trace

    def __cinit__(self, str name, path):
        self.name = name
        self._path = path
        self.idle_limit = self.age_limit = INFINITY
        self.bytes = -1

    @property
    def path(self):
        _guard(self)
        path = self._path
        _unguard(self)
        return path

    @property
    def instance(self):
        _guard(self)
        instance = self._instance
        _unguard(self)
        return instance

    @property
    def leaving(self):
        _guard(self)
        leaving = self._leaving
        _unguard(self)
        return leaving

    @property
    def uses(self):
        return warmset_load_uses(&self._uses) + _late_uses(self)

    @property
    def alive(self):
        return bool(self._alive)

    @property
    def pinned(self):
        return bool(self._pinned)

    def __dealloc__(self):
        _unlink(&self.link)
        _hide(self)
        if FREE_THREADED:
            warmset_drop_table(_trace(self).table)

    def __repr__(self):
        kind = ("empty", "strong", "weak")[self.kind]
        return f"<slot {self.name!r}: {kind}, {self.uses} uses, {self.holds} holds>"


@cython.final
cdef class Departure:
    """
    An instance that was taken out of its slot, and why.

    `held` tells whether somebody held it then; in that case it is not closed before `holds`, which
    are still to be given back, come down to none, and it may be revived until then, unless its
    class was replaced. `shared` tells whether it was ever handed out without a lease.
    """

    cdef readonly str class_name
    cdef public object instance
    cdef public object routes
    cdef readonly int cause
    cdef readonly double built_at
    cdef readonly double last_used
    cdef readonly double build_seconds
    cdef readonly unsigned long long uses
    cdef readonly long long bytes
    cdef readonly unsigned int serial
    cdef readonly unsigned int epoch
    cdef readonly unsigned int holds
    cdef readonly bint held
    cdef readonly bint shared
    cdef readonly bint weak

    def __repr__(self):
        return f"<departure of {self.class_name!r}: cause {self.cause}, {self.holds} holds>"


@cython.final
cdef class Injected:
    """A method that was given from outside, and the route that `execute` compiled for it."""

    cdef readonly object method
    cdef object plan

    def __cinit__(self, method):
        self.method = method


cdef Slot _probe = Slot("", None)
cdef Py_ssize_t LINK_OFFSET = <char*>&_probe.link - <char*><PyObject*>_probe
cdef Py_ssize_t TRACE_OFFSET = <char*>&_probe.trace - <char*><PyObject*>_probe


cdef inline PyObject* _slot_at(Link* link) noexcept:
    return <PyObject*>(<char*>link - LINK_OFFSET)


cdef inline Trace* _trace(Slot slot) noexcept:
    return <Trace*>&slot.trace


cdef inline void _guard(Slot slot) noexcept:
    """
    Let nobody else copy or change the pointers of a slot that Python code may ask for.

    For the length of one assignment, which must not drop the last reference to what was there.
    """
    if FREE_THREADED:
        warmset_lock(&_trace(slot).guard)


cdef inline void _unguard(Slot slot) noexcept:
    if FREE_THREADED:
        warmset_unlock(&_trace(slot).guard)


cdef inline number _late_uses(Slot slot) noexcept:
    """Uses that are still with the threads that made them."""
    if not FREE_THREADED:
        return 0
    return warmset_late_uses(_trace(slot).table, <PyObject*>slot, False)


cdef inline void _hide(Slot slot) noexcept:
    """Take a slot out of the front."""
    if slot.place != NULL:
        warmset_store_pointer(slot.place, NULL)
        warmset_store_pointer(&slot.place, NULL)


cdef inline void _unlink(Link* link) noexcept:
    if link.newer != NULL:
        link.newer.older = link.older
        link.older.newer = link.newer
        link.newer = link.older = NULL


cdef inline void _link(Link* link, Link* older) noexcept:
    link.older = older
    link.newer = older.newer
    older.newer.older = link
    older.newer = link


cdef inline void _lock(RegistryCore core) noexcept:
    """Begin a change: until `_unlock` no Python code may run, here or in what is dropped."""
    if FREE_THREADED:
        warmset_mutex_lock(&core._mutex)


cdef inline void _unlock(RegistryCore core) noexcept:
    if FREE_THREADED:
        warmset_mutex_unlock(&core._mutex)


# -- the registry's core -------------------------------------------------------------------------

@cython.no_gc_clear  # the collector breaks cycles at the dict, so no method ever meets a None here
cdef class RegistryCore:
    """
    The part of a registry that a hit runs through.

    Args:
        cache_ttl_seconds: Idle seconds after which an instance leaves; 0 switches it off.
        max_age_seconds: Seconds since its build after which an instance leaves; 0 switches it off.
        max_cache_size: How many instances are kept at most.
        enable_weakref: Keep instances by weak reference only.
        revive: Whether a held instance that was removed is handed out again, and kept, when its
            name is asked for before its last release; else another one is built.
        timer: Gives monotonic seconds; None takes the clock of the system.

    Single calls are safe under threads. A hit costs one probe for its slot and a few stores.
    """

    cdef double _idle_limit  # of classes that have no limits of their own
    cdef double _age_limit
    cdef bint _one_limit  # whether all classes have that idle limit, and no age limit
    cdef Py_ssize_t _max_size
    cdef bint _weak_mode
    cdef bint _revives
    cdef bint _coarse
    cdef object _timer
    cdef object __weakref__
    cdef readonly dict _slots
    cdef readonly dict _injected
    cdef Link _root
    cdef Front* _front
    cdef Hold _holds  # the root of the ring of all holds
    cdef Table* _table  # of the stripes; on an interpreter with a lock there is none
    cdef number _last_stamp  # of those that the ring shows
    cdef Mutex _mutex  # of all changes; on an interpreter with a lock there is none
    cdef Py_ssize_t _layout
    cdef unsigned int _generation
    cdef readonly Py_ssize_t _cached
    cdef readonly Py_ssize_t _weak
    cdef readonly long long _bytes  # of the cached, as far as they are known
    cdef public bint _by_policy  # whether `_choose_room` says who leaves, and not the ring
    cdef long long hits
    cdef public long long _misses
    cdef public long long _evictions
    cdef public long long _builds
    cdef double _build_seconds
    cdef long long _removals[CAUSES]
    cdef long long _tallies[TALLIES]
    cdef readonly Py_ssize_t _registered  # slots with a path
    cdef bint _sealed
    cdef readonly Py_ssize_t _blocked  # builds that wait for room, and what passes
    cdef public object _queue  # of departures to tell of, if any

    def __cinit__(self, *args, **kwargs):
        self._slots = {}
        self._injected = {}
        self._root.newer = self._root.older = &self._root
        self._holds.newer = self._holds.older = &self._holds
        self._max_size = 1
        self._front = _new_front(FRONT_AT_FIRST)
        if self._front == NULL:
            raise MemoryError
        if FREE_THREADED:
            self._table = warmset_new_table()
            if self._table == NULL:
                raise MemoryError

    def __init__(
        self,
        *,
        cache_ttl_seconds=300.0,
        max_age_seconds=0.0,
        max_cache_size=100,
        enable_weakref=False,
        revive=True,
        timer=None,
    ):
        self._idle_limit = cache_ttl_seconds if cache_ttl_seconds > 0.0 else INFINITY
        self._age_limit = max_age_seconds if max_age_seconds > 0.0 else INFINITY
        self._one_limit = self._age_limit == INFINITY
        self._max_size = max_cache_size
        self._weak_mode = enable_weakref
        self._revives = revive
        self._timer = timer
        _fork.watch(self)
        self._coarse = True
        _choose_clock(self, self._idle_limit, self._age_limit)

    def __dealloc__(self):
        # Slots may outlive the registry, in the hands of leases; their links must not.
        while self._root.newer != &self._root:
            _unlink(self._root.newer)
        if self._front != NULL:
            _empty_front(self._front)
            PyMem_Free(self._front)
        if FREE_THREADED:
            warmset_drop_table(self._table)

    # -- look-up ---------------------------------------------------------------------------------

    def get_instance(self, class_name):
        """
        Give the instance of a class, building it if it is not warm.

        Args:
            class_name: A registered name.

        Returns:
            The instance; the same one while it stays warm.

        Raises:
            MethodRegistryError: The subclass tells the stage: unknown name, path, import,
                attribute, class, build, cycle, closed.

        Safe under threads; O(1) on a hit. A miss runs the import and the constructor, and waits if
        another thread is at it.
        """
        return _get(self, class_name)

    def get_method(self, class_name, method_name):
        """
        Give a bound method of a class's instance, or the callable injected under the two names.

        Args:
            class_name: A registered name, or one that a method was injected for.
            method_name: The attribute of the instance.

        Returns:
            The callable. It keeps its instance alive, but holds no lease on it.

        Raises:
            MethodNotFoundError: The instance has no such callable.
            MethodRegistryError: As `get_instance`.

        Safe under threads; O(1) on a hit.
        """
        cdef PyObject* method
        if type(class_name) is not str:
            class_name = check_name(class_name)
        if self._injected:
            check_name(class_name)
            injected = _find_injected(self, class_name, method_name)
            if injected is not None:
                return (<Injected>injected).method
        warm = _get(self, class_name)
        method = PyObject_GetAttr(<PyObject*>warm, <PyObject*>method_name)
        if method != NULL and PyCallable_Check(method):
            return _owned(method)
        return _not_found(warm, class_name, method_name, method)

    def use(self, class_name):
        """
        Look up and hold an instance for the time of a ``with`` block.

        Args:
            class_name: A registered name.

        Returns:
            A context manager that gives the instance. While it is held, the instance is not
            evicted, and its idle clock stands still; the clock starts again at release.

        Raises:
            MethodRegistryError: On entry, as `get_instance`.

        Safe under threads; O(1) on a hit.
        """
        if type(class_name) is not str or not PyUnicode_GET_LENGTH(<PyObject*>class_name):
            class_name = check_name(class_name)
        return Lease(self, class_name)

    def bind(self, class_name, method_name):
        """
        Give a handle: a callable that outlives evictions, and holds the instance while it runs.

        Args:
            class_name: A registered name, or one that a method was injected for.
            method_name: The method that each call runs.

        Returns:
            The handle. Nothing is built until it is called.

        Raises:
            UnknownClassError: The name is not registered, and no such method was injected.

        Safe under threads; O(1).
        """
        class_name, method_name = check_name(class_name), check_name(method_name)
        if class_name not in self._slots and _find_injected(self, class_name, method_name) is None:
            self._refuse(class_name)
        return Handle(self, class_name, method_name)

    def inject_method(self, class_name, method_name, method):
        """
        Give a method from outside; it wins over the class's own, and needs no class behind it.

        Args:
            class_name: Any name, registered or not.
            method_name: The name to find it by.
            method: The callable.

        Raises:
            TypeError: A name is not a string, or the method is not callable.

        Safe under threads; O(1).
        """
        class_name, method_name = check_name(class_name), check_name(method_name)
        if not callable(method):
            raise TypeError(
                f"method injected as {class_name}.{method_name} must be callable, got {method!r}"
            )
        injected = Injected(method)
        self._injected.setdefault(class_name, {})[method_name] = injected
        warmset_add_size(&self._layout, 1)

    def evict_expired(self):
        """
        Evict the instances that have been idle for longer than the TTL, or are past their age.

        Returns:
            How many left.

        Safe under threads; O(evicted + held), it stops at the first live instance; O(cached) where
        there is a maximum age, or a class has limits of its own.
        """
        cdef PyObject* found
        cdef Slot slot
        cdef double now
        if self._one_limit and self._idle_limit == INFINITY:
            return 0
        now = _now(self)
        departed = []
        _lock(self)
        try:
            if self._one_limit:
                while True:
                    found = _oldest_free(self, None)
                    if found == NULL or now - _used_at(found) <= self._idle_limit:
                        break
                    slot = <Slot>found
                    _detach(self, slot, slot.epoch, IDLE, departed)
            else:
                for slot in _cached_slots(self, True):
                    _expire(self, slot, now, departed)
        finally:
            _unlock(self)
        if departed:
            self._departed(departed)
        return len(departed)

    # -- what the registry overrides -------------------------------------------------------------

    def _build(self, class_name):
        """A miss calls up: the registry overrides it, and gives what it built as held."""
        return self._refuse(class_name), None, -1

    def _departed(self, departed):
        """Instances left; the registry overrides it. No lock is held."""

    def _prolong(self, Lease lease, running):
        """A method returned what goes on running; the registry overrides it."""
        lease.__exit__()
        return running

    def _choose_room(self, spare):
        """Evict down to the bound by a policy; the registry overrides it."""

    def _let_go(self, departure):
        """Nobody holds a departed instance any more; the registry overrides it."""

    def _refuse(self, class_name):
        raise MethodRegistryError(f"no class {class_name!r}", class_name=class_name)

    def __sizeof__(self):
        """Bytes of the registry itself, and of the front and the stripes, which it alone owns."""
        size = object.__sizeof__(self) + sizeof(Front) + self._front.mask * sizeof(PyObject*)
        if FREE_THREADED:
            size += warmset_table_bytes(self._table)
        return size

    # -- what the registry calls -----------------------------------------------------------------

    def _is_injected(self, class_name, method_name):
        return _find_injected(self, class_name, method_name) is not None

    def _drop_injected(self):
        self._injected.clear()
        warmset_add_size(&self._layout, 1)

    @property
    def _hits(self):
        return self.hits + _late_hits(self)

    @_hits.setter
    def _hits(self, long long count):
        self.hits = count - _late_hits(self)

    def _now(self):
        return _now(self)

    @property
    def _tick(self):
        """Seconds by which the clock may lag; 0.0 where it is precise or injected."""
        return warmset_tick() if self._coarse and self._timer is None else 0.0

    def _add_slot(self, class_name, class_path):
        """The slot of a name, made if need be, with a path; and the path that it had before."""
        cdef Slot slot, fresh
        cdef PyObject* name = <PyObject*>class_name
        Py_INCREF(class_name)
        PyUnicode_InternInPlace(&name)
        class_name = _owned(name)
        fresh = Slot(class_name, None)
        if FREE_THREADED:
            _trace(fresh).table = self._table
            warmset_add_size(&self._table.owners, 1)
        _lock(self)
        try:
            slot = self._slots.setdefault(class_name, fresh)
            before = slot._path
            if not slot._alive:
                slot._alive = True
                slot.idle_limit = self._idle_limit
                slot.age_limit = self._age_limit
            _guard(slot)
            slot._path = class_path
            _unguard(slot)
            self._registered += (class_path is not None) - (before is not None)
            warmset_add_size(&self._layout, 1)
        finally:
            _unlock(self)
        return slot, before

    def _drop_slot(self, Slot slot not None, int cause):
        """Forget a slot, if it is still the one of its name; nothing is put into it any more."""
        _lock(self)
        try:
            dropped = slot._alive
            if dropped:
                slot._alive = False
                _hide(slot)
                if FREE_THREADED:
                    warmset_wait(self._table)
                self._registered -= slot._path is not None
                del self._slots[slot.name]
                warmset_add_size(&self._layout, 1)
        finally:
            _unlock(self)
        if dropped:
            self._remove(slot, cause)
        return bool(dropped)

    def _seal(self):
        """Put nothing into any slot any more: the registry is being closed."""
        self._sealed = True

    def _token(self, Slot slot not None):
        """Changes when an instance leaves the slot, or all are cleared: see `_publish`."""
        cdef unsigned int token
        _lock(self)
        token = slot.epoch + self._generation
        _unlock(self)
        return token

    def _peek(self, Slot slot not None):
        """A warm instance, held but not counted as a look-up: that was counted as a miss."""
        cdef unsigned int epoch
        cdef PyObject* instance = _warm(self, slot, _now(self), True, False, &epoch)
        return None if instance == NULL else (_owned(instance), epoch)

    def _publish(self, Slot slot not None, instance, unsigned int token, double build_seconds):
        """
        Cache what was built, unless the slot or the registry was cleared since `token`.

        The epoch under which it is held for the builder, or -1 if it was not cached.
        """
        cdef double now = _now(self)
        cdef unsigned char kind = STRONG
        cdef long long held = -1
        content = instance
        if self._weak_mode:
            try:
                content, kind = weak_reference(instance), WEAK
            except TypeError:
                kind = STRONG  # its type has no weak references: under TTL and size bound, then
        departed = []
        _lock(self)
        try:
            self._builds += 1
            self._build_seconds += build_seconds
            if (
                slot._alive
                and not self._sealed
                and <unsigned int>(slot.epoch + self._generation) == token
                and slot.kind == EMPTY
            ):
                if kind == STRONG and not self._by_policy:
                    _make_room(self, self._max_size - 1, departed, None)
                if slot.kind == EMPTY:
                    slot.holds = 1
                    held = slot.epoch
                    slot.build_seconds = build_seconds
                    slot.serial = <unsigned int>self._builds
                    _settle(self)
                    _attach(self, slot, content, kind, self._root.older, now, now, 1)
        finally:
            _unlock(self)
        if departed:
            try:
                self._departed(departed)
            except BaseException:  # an interrupt in a closer: nobody will give this back
                if held >= 0:
                    _give_back(self, slot, <unsigned int>held, now, False)
                raise
        return held

    def _unhold(self, Slot slot not None, unsigned int epoch):
        """Give back a hold that a build gave, for a caller who was interrupted."""
        _give_back(self, slot, epoch, slot.last_used, False)

    def _exchange(
        self, Slot slot not None, unsigned int epoch, unsigned int token, instance,
        double build_seconds,
    ):
        """
        Put what was built into the place of what is there under this epoch, which is recycled.

        It was not used by that: it inherits the last use. Unless something left since `token`. The
        epoch of the new instance, or -1.
        """
        cdef double now = _now(self)
        cdef long long exchanged = -1
        departed = []
        _lock(self)
        try:
            self._builds += 1
            self._build_seconds += build_seconds
            if (
                slot._alive
                and not self._sealed
                and <unsigned int>(slot.epoch + self._generation) == token
                and slot.kind == STRONG
                and slot.epoch == epoch
            ):
                _detach(self, slot, epoch, RECYCLED, departed)
                if departed and slot.kind == EMPTY and slot._alive and not self._sealed:
                    slot.build_seconds = build_seconds
                    slot.serial = <unsigned int>self._builds
                    exchanged = slot.epoch
                    _attach(
                        self,
                        slot,
                        instance,
                        STRONG,
                        _place(self, slot, slot.last_used),
                        now,
                        slot.last_used,
                        0,
                    )
        finally:
            _unlock(self)
        if departed:
            self._departed(departed)
        if self._cached > self._max_size:
            self._trim(slot)
        return exchanged

    def _evict(self, Slot slot not None, unsigned int epoch, int cause, long long more_than):
        """
        Evict what is there under this epoch, unless it is held or pinned.

        For SIZE only while more than so many are cached, for MEMORY only while they are known to
        have more than so many bytes. Whether it left.
        """
        cdef long long much
        departed = []
        _lock(self)
        try:
            much = self._bytes if cause == MEMORY else self._cached
            if (
                warmset_load_holds(&slot.holds) == 0
                and not slot._pinned
                and much > more_than
            ):
                _detach(self, slot, epoch, cause, departed)
        finally:
            _unlock(self)
        if departed:
            self._departed(departed)
        return bool(departed)

    def _least_recent(self, Slot spare=None):
        """The slot whose instance was used least recently, of those that may be evicted."""
        cdef PyObject* found
        least = None
        _lock(self)
        try:
            found = _oldest_free(self, spare)
            if found != NULL:
                least = <object>found
        finally:
            _unlock(self)
        return least

    def _warm_slots(self):
        """The slots that hold an instance strongly, newest first."""
        _lock(self)
        try:
            slots = _cached_slots(self, False)
        finally:
            _unlock(self)
        return slots

    def _set_bytes(self, Slot slot not None, unsigned int epoch, long long size):
        """Note how big an instance is, -1 if that is not known; whether it is still there."""
        cdef bint there
        _lock(self)
        try:
            there = slot.kind != EMPTY and slot.epoch == epoch
            if there:
                if slot.kind == STRONG:
                    self._bytes += max(size, 0) - max(slot.bytes, 0)
                slot.bytes = size
        finally:
            _unlock(self)
        return there

    def _set_limits(self, Slot slot not None, idle_seconds, age_seconds):
        """Give a class limits of its own; None takes the registry's, inf is none."""
        cdef double idle = self._idle_limit if idle_seconds is None else idle_seconds
        cdef double age = self._age_limit if age_seconds is None else age_seconds
        slot.idle_limit = idle
        slot.age_limit = age
        if idle != self._idle_limit or age != INFINITY:
            self._one_limit = False
        _choose_clock(self, idle, age)

    def _set_pinned(self, Slot slot not None, bint pinned):
        """Let an instance not leave for want of use, room or memory; or let it again."""
        slot._pinned = pinned

    def _hold(self, Slot slot not None, instance):
        """Hold what another thread has built; its epoch, or -1 if it has left already."""
        cdef unsigned int epoch
        cdef long long held = -1
        _lock(self)
        try:
            epoch = slot.epoch
            kept = slot._instance() if slot.kind == WEAK else slot._instance
            if slot.kind != EMPTY and kept is instance and slot.epoch == epoch:
                warmset_add_holds(&slot.holds, 1)
                held = epoch
        finally:
            _unlock(self)
        return held

    def _insert(
        self, Slot slot not None, instance, double built_at, double last_used, long long uses
    ):
        """
        Write an instance into a slot, at the place in the ring that its last use gives it.

        False if the slot has been forgotten meanwhile, or the registry closed.
        """
        cdef bint written = False
        departed = []
        _lock(self)
        try:
            _vacate(self, slot, REPLACED, departed)
            slot.build_seconds = 0.0
            if slot._alive and not self._sealed and slot.kind == EMPTY:
                written = True
                slot.serial = <unsigned int>self._builds
                slot.shared = True
                _attach(
                    self,
                    slot,
                    instance,
                    STRONG,
                    _place(self, slot, last_used),
                    built_at,
                    last_used,
                    uses,
                )
        finally:
            _unlock(self)
        if departed:
            self._departed(departed)
        return written

    def _insert_weak(self, Slot slot not None, reference):
        """Write a weak reference into a slot; as `_insert`."""
        cdef double now = _now(self)
        cdef bint written = False
        departed = []
        _lock(self)
        try:
            _vacate(self, slot, REPLACED, departed)
            slot.build_seconds = 0.0
            if slot._alive and not self._sealed and slot.kind == EMPTY:
                written = True
                _attach(self, slot, reference, WEAK, NULL, now, now, 1)
        finally:
            _unlock(self)
        if departed:
            self._departed(departed)
        return written

    def _amend(self, Slot slot not None, double built_at, double last_used, long long uses):
        """Rewrite the times and the count of a cached instance, and move it where they put it."""
        cdef Link* older
        _lock(self)
        try:
            if slot.kind == STRONG:
                if FREE_THREADED:
                    _shut(self, slot)
                older = _place(self, slot, last_used)
                slot.built_at = built_at
                slot.last_used = last_used
                slot._uses = uses
                _unlink(&slot.link)
                _link(&slot.link, older)
                if FREE_THREADED:
                    _open(slot)
        finally:
            _unlock(self)

    def _remove(self, Slot slot not None, int cause):
        departed = []
        _lock(self)
        try:
            _vacate(self, slot, cause, departed)
        finally:
            _unlock(self)
        if departed:
            self._departed(departed)
        return bool(departed)

    def _clear(self, int cause):
        """Take everything out: how many were kept strongly, how many weakly, and what left."""
        cdef Slot slot
        cdef Py_ssize_t strong
        departed = []
        _lock(self)
        try:
            self._generation += 1
            while self._root.newer != &self._root:
                _settle(self)
                slot = <Slot>_slot_at(self._root.newer)
                _detach(self, slot, slot.epoch, cause, departed)
            strong = len(departed)
            if self._weak:
                for slot in list(self._slots.values()):
                    if slot.kind == WEAK:
                        _detach(self, slot, slot.epoch, cause, departed)
        finally:
            _unlock(self)
        return strong, len(departed) - strong, departed

    def _trim(self, Slot spare=None):
        """Evict down to the bound; one slot may be spared."""
        if self._by_policy:
            self._choose_room(spare)
            return
        departed = []
        _lock(self)
        try:
            _make_room(self, self._max_size, departed, spare)
        finally:
            _unlock(self)
        if departed:
            self._departed(departed)

    def _holders(self):
        """Class name, thread and time of each hold, oldest first."""
        if FREE_THREADED:
            return _holders_by_stripe(self)
        cdef Hold* hold = self._holds.newer
        cdef Hold* facts
        cdef Py_ssize_t count = 0, taken = 0, i
        cdef list slots
        while hold != &self._holds:
            count += 1
            hold = hold.newer
        # All objects are made outside of the walk: making one may let somebody in.
        slots = [None] * count
        facts = <Hold*>PyMem_Malloc((count + 1) * sizeof(Hold))
        if facts == NULL:
            raise MemoryError
        hold = self._holds.newer
        while hold != &self._holds and taken < count:
            facts[taken] = hold[0]
            slots[taken] = <object>hold.slot
            hold = hold.newer
            taken += 1
        try:
            return [
                ((<Slot>slots[i]).name, facts[i].thread, facts[i].since) for i in range(taken)
            ]
        finally:
            PyMem_Free(facts)

    def _has_room(self):
        """Whether an instance can be added within the bound."""
        cdef bint room
        _lock(self)
        try:
            room = self._cached < self._max_size or _oldest_free(self, None) != NULL
        finally:
            _unlock(self)
        return room

    def _block(self, Py_ssize_t count):
        """From now on there are so many more, or fewer, that a release has to tell of."""
        warmset_add_size(&self._blocked, count)

    def _made_room(self):
        """Something was released while builds wait for that; the registry overrides it."""

    def _is_alone(self, list box not None):
        """Whether nothing but this list refers to what is in it, as far as that can be known."""
        return len(box) == 1 and warmset_is_alone(PyList_GET_ITEM(box, 0))

    def _abandon(self, Slot slot not None):
        """Take an instance out and leave it alone: after a fork it is the parent's."""
        departed = []
        _lock(self)
        try:
            _detach(self, slot, slot.epoch, DISCARDED, departed)
            _left = slot._leaving  # dropped after the change
            _guard(slot)
            slot._leaving = None
            _unguard(slot)
        finally:
            _unlock(self)
        return bool(departed)

    def _reset_after_fork(self):
        """
        Where there is an interpreter lock, there is no lock here that another thread could hold.

        Where there is none, all threads stood still at the fork, so none was reading; and in a
        change only where it waited for a lock of the interpreter, between two whole steps of it.
        """
        warmset_keep_own_seat()
        warmset_mutex_reset(&self._mutex)
        self._blocked = 0

    def _tally(self, int which):
        """Count one more of what `_tallies` names."""
        if not 0 <= which < TALLIES:
            raise IndexError(which)
        warmset_add_number(&self._tallies[which], 1)

    def _counters(self):
        """
        The counters, of one moment.

        Hits, misses, evictions, builds, build seconds, removals by cause, and the tallies.
        """
        # Read before the first object is made for them.
        cdef long long hits, misses, evictions, builds
        cdef long long removals[CAUSES]
        cdef long long tallies[TALLIES]
        cdef double build_seconds
        cdef int cause
        _lock(self)
        hits = self.hits + _late_hits(self)
        misses = warmset_load_tally(&self._misses)
        evictions = self._evictions
        builds = self._builds
        build_seconds = self._build_seconds
        for cause in range(CAUSES):
            removals[cause] = self._removals[cause]
        for cause in range(TALLIES):
            tallies[cause] = warmset_load_tally(&self._tallies[cause])
        _unlock(self)
        by_cause = tuple([removals[cause] for cause in range(CAUSES)])
        by_name = tuple([tallies[cause] for cause in range(TALLIES)])
        return hits, misses, evictions, builds, build_seconds, by_cause, by_name

    def _entries(self):
        """
        Name, built at, last used, uses, build seconds, holds, bytes: of the cached, newest first.
        """
        cdef Slot slot
        entries = []
        _lock(self)
        try:
            for slot in _cached_slots(self, False):
                if slot.kind == STRONG:
                    entries.append(
                        (
                            slot.name,
                            slot.built_at,
                            _used_at(<PyObject*>slot),
                            warmset_load_uses(&slot._uses) + _late_uses(slot),
                            slot.build_seconds,
                            warmset_load_holds(&slot.holds),
                            slot.bytes,
                        )
                    )
        finally:
            _unlock(self)
        return entries

    def _weak_alive(self):
        """How many weakly kept instances are alive."""
        cdef Slot slot
        cdef Py_ssize_t alive = 0
        if self._weak:
            for slot in list(self._slots.values()):
                _lock(self)
                try:
                    reference = slot._instance if slot.kind == WEAK else None
                finally:
                    _unlock(self)
                if reference is not None and reference() is not None:
                    alive += 1
        return alive

    def _ring(self, *, from_oldest=False):
        """The names along one direction of the links, for the structural check."""
        cdef Slot slot
        _lock(self)
        try:
            slots = _cached_slots(self, from_oldest)
        finally:
            _unlock(self)
        return [slot.name for slot in slots]


# -- the ways of a look-up -----------------------------------------------------------------------

cdef inline double _now(RegistryCore core) except? -1.0:
    if core._timer is None:
        return warmset_clock(core._coarse)
    return core._timer()


cdef inline number _late_hits(RegistryCore core) noexcept:
    """Hits that stand in the stripes of their threads."""
    if not FREE_THREADED:
        return 0
    return warmset_hits(core._table)


cdef inline PyObject* _in_front(Front* front, object class_name) noexcept:
    """The slot at the place that the address of a name gives, if it is of that very object."""
    cdef PyObject* found = <PyObject*>warmset_load_pointer(
        &front.places[(<size_t><PyObject*>class_name >> 4) & front.mask]
    )
    if found != NULL and <PyObject*>(<Slot>found).name == <PyObject*>class_name:
        return found
    return NULL


cdef inline PyObject* _find(RegistryCore core, object class_name) except? NULL:
    """The slot of a name, borrowed; NULL after counting a miss. The name is an exact str."""
    cdef PyObject* found = _in_front(core._front, class_name)
    if found != NULL:
        return found
    return _find_by_value(core, class_name)


cdef PyObject* _find_by_value(RegistryCore core, object class_name) except? NULL:
    cdef PyObject* found = PyDict_GetItemWithError(core._slots, class_name)
    if found == NULL:
        check_name(class_name)
        core._misses += 1
    elif <PyObject*>(<Slot>found).name == <PyObject*>class_name:
        _bring_to_front(core, <Slot>found)
    return found


cdef Front* _new_front(size_t size) noexcept:
    cdef Front* front = <Front*>PyMem_Calloc(1, sizeof(Front) + (size - 1) * sizeof(PyObject*))
    if front != NULL:
        front.mask = size - 1
    return front


cdef void _bring_to_front(RegistryCore core, Slot slot) noexcept:
    """Let a slot be found by the address of its name, in the place of another one if need be."""
    cdef Front* front = core._front
    cdef size_t size = front.mask + 1, wanted = <size_t>len(core._slots)
    cdef PyObject** place
    if FREE_THREADED:
        wanted *= 4  # what does not stand in the front costs more here
    if size < FRONT_AT_MOST and size < wanted:
        while size < FRONT_AT_MOST and size < wanted:
            size *= 2
        front = _new_front(size)
        if front == NULL:
            front = core._front  # it goes on
        else:
            _empty_front(core._front)
            if FREE_THREADED:
                front = <Front*>warmset_exchange_pointer(&core._front, front)
                warmset_wait(core._table)
                PyMem_Free(front)
                front = core._front
            else:
                PyMem_Free(core._front)
                core._front = front
    place = &front.places[(<size_t><PyObject*>slot.name >> 4) & front.mask]
    if place[0] != NULL:
        warmset_store_pointer(&(<Slot>place[0]).place, NULL)
    warmset_store_pointer(place, <PyObject*>slot)
    warmset_store_pointer(&slot.place, place)


cdef void _empty_front(Front* front) noexcept:
    cdef size_t i
    for i in range(front.mask + 1):
        if front.places[i] != NULL:
            _hide(<Slot>front.places[i])


cdef inline PyObject* _warm(
    RegistryCore core, Slot slot, double now, bint hold, bint count, unsigned int* epoch
) except? NULL:
    """A new reference to the instance of a slot; NULL if there is none, or none any more."""
    cdef PyObject* instance
    if FREE_THREADED:
        return _warm_or_shut(core, slot, now, hold, count, epoch)
    if (
        slot.kind == STRONG
        and now - slot.last_used <= slot.idle_limit
        and now - slot.built_at <= slot.age_limit
    ):
        instance = <PyObject*>slot._instance
        _incref(instance)
        slot.last_used = now
        slot._uses += count
        slot.holds += hold
        if not hold:
            slot.shared = True
        core.hits += count
        epoch[0] = slot.epoch
        if core._root.older != &slot.link:
            _unlink(&slot.link)
            _link(&slot.link, core._root.older)
        return instance
    return _warm_or_gone(core, slot, now, hold, count, epoch)


cdef PyObject* _warm_or_gone(
    RegistryCore core, Slot slot, double now, bint hold, bint count, unsigned int* epoch
) except? NULL:
    cdef Slot kept = slot  # the caller's is borrowed, and foreign code may run from here on
    cdef PyObject* instance
    cdef list departed = []
    _lock(core)
    try:
        instance = _warm_or_taken(core, kept, now, hold, count, epoch, departed)
    finally:
        _unlock(core)
    if departed:
        core._departed(departed)
    return instance


cdef PyObject* _warm_or_taken(
    RegistryCore core,
    Slot slot,
    double now,
    bint hold,
    bint count,
    unsigned int* epoch,
    list departed,
) except? NULL:
    """What a look-up does with a slot that is not simply warm; what leaves goes to `departed`."""
    cdef unsigned int seen
    if slot._leaving and core._revives:
        _revive(core, slot, now)
    seen = slot.epoch
    if slot.kind == WEAK:
        instance = slot._instance()
        if instance is not None:
            core.hits += count
            epoch[0] = seen
            if slot.epoch == seen:
                slot.last_used = now
                slot._uses += count
                slot.holds += hold
            Py_INCREF(instance)
            return <PyObject*>instance
        _detach(core, slot, seen, COLLECTED, departed)
    elif slot.kind == STRONG:
        _expire(core, slot, now, departed)
        if slot.kind == STRONG and slot.epoch == seen:
            # Fresh, where it was not read without the lock; or held or pinned, so that its idle
            # clock stood still; or used since.
            return _take(core, slot, now, hold, count, epoch)
    warmset_add_number(&core._misses, count)
    return NULL


cdef PyObject* _take(
    RegistryCore core, Slot slot, double now, bint hold, bint count, unsigned int* epoch
) noexcept:
    """A new reference to what is in a strong slot, which counts as used now."""
    Py_INCREF(slot._instance)
    warmset_store_time(&slot.last_used, now)
    warmset_add_uses(&slot._uses, count)
    warmset_add_holds(&slot.holds, hold)
    if not hold:
        warmset_store_byte(&slot.shared, True)
    core.hits += count
    epoch[0] = slot.epoch
    _settle(core)
    if core._root.older != &slot.link:
        _unlink(&slot.link)
        _link(&slot.link, core._root.older)
    warmset_store_number(&core._last_stamp, core._last_stamp + 1)
    return <PyObject*>slot._instance


cdef inline object _get(RegistryCore core, object class_name):
    """A look-up without a lease."""
    cdef unsigned int epoch
    cdef double now
    cdef PyObject* found
    cdef PyObject* instance
    if type(class_name) is not str:
        class_name = check_name(class_name)
    now = _now(core)
    if FREE_THREADED:
        instance = _look_up(core, class_name, now, False, True, NULL, &epoch)
        if instance != NULL:
            return _owned(instance)
        return _build_and_share(core, class_name)
    found = _find(core, class_name)
    if found != NULL:
        instance = _warm(core, <Slot>found, now, False, True, &epoch)
        if instance != NULL:
            return _owned(instance)
    return _build_and_share(core, class_name)


# -- a look-up without a lock --------------------------------------------------------------------
# What follows, up to the builds, is for an interpreter without a lock. What is called between
# `warmset_enter` and `warmset_leave` is C that runs no Python code and waits for nothing.

cdef inline PyObject* _look_up(
    RegistryCore core,
    object class_name,
    double now,
    bint hold,
    bint count,
    PyObject** held,
    unsigned int* epoch,
) except? NULL:
    """
    A new reference to the instance of a name; NULL after counting a miss.

    With `hold`, `held` becomes a new reference to its slot, also after a miss; or NULL.
    """
    cdef Stripe* stripe = warmset_enter(core._table)
    cdef PyObject* found
    cdef PyObject* instance = NULL
    if stripe != NULL:
        found = _in_front(<Front*>warmset_load_pointer(&core._front), class_name)
        if found != NULL:
            instance = _read(core, stripe, <Slot>found, now, hold, count, epoch)
            if instance != NULL and hold:
                _incref(found)
                held[0] = found
        warmset_leave(stripe)
        if instance != NULL:
            return instance
    return _look_up_by_value(core, class_name, now, hold, count, held, epoch)


cdef PyObject* _look_up_by_value(
    RegistryCore core,
    object class_name,
    double now,
    bint hold,
    bint count,
    PyObject** held,
    unsigned int* epoch,
) except? NULL:
    cdef Slot slot
    cdef Stripe* stripe
    cdef PyObject* found = warmset_slot_named(<PyObject*>core._slots, <PyObject*>class_name)
    if hold:
        held[0] = found
    if found == NULL:
        check_name(class_name)
        warmset_add_number(&core._misses, 1)
        return NULL
    if hold:
        slot = <Slot>found
    else:
        slot = _owned(found)
    stripe = warmset_own(core._table)
    # Slots that want the same place take turns at it, not at each look-up.
    if stripe == NULL or (
        warmset_load_pointer(&slot.place) == NULL
        and <PyObject*>slot.name == <PyObject*>class_name
        and warmset_load_number(&stripe.hits) % 16 == 0
    ):
        _lock(core)
        try:
            warmset_sit_down(core._table)
            if slot._alive and <PyObject*>slot.name == <PyObject*>class_name:
                _bring_to_front(core, slot)
        finally:
            _unlock(core)
    try:
        return _warm_or_shut(core, slot, now, hold, count, epoch)
    except BaseException:
        if hold:
            held[0] = NULL
            Py_DECREF(slot)
        raise


cdef PyObject* _warm_or_shut(
    RegistryCore core, Slot slot, double now, bint hold, bint count, unsigned int* epoch
) except? NULL:
    """As `_warm`; the slot is not borrowed."""
    cdef Stripe* stripe = warmset_enter(core._table)
    cdef PyObject* instance
    if stripe != NULL:
        instance = _read(core, stripe, slot, now, hold, count, epoch)
        warmset_leave(stripe)
        if instance != NULL:
            return instance
    return _warm_or_gone(core, slot, now, hold, count, epoch)


cdef inline PyObject* _read(
    RegistryCore core,
    Stripe* stripe,
    Slot slot,
    double now,
    bint hold,
    bint count,
    unsigned int* epoch,
) noexcept:
    """A new reference to what is in an open slot and fresh, else NULL."""
    cdef PyObject* instance
    if not (
        warmset_load_byte(&_trace(slot).open)
        and now - warmset_load_time(&slot.last_used) <= slot.idle_limit
        and now - slot.built_at <= slot.age_limit
    ):
        return NULL
    instance = <PyObject*>slot._instance
    epoch[0] = slot.epoch
    if hold:
        warmset_add_holds(&slot.holds, 1)
    elif not warmset_load_byte(&slot.shared):
        warmset_store_byte(&slot.shared, True)
    _note(core, stripe, slot, now)
    if count:
        warmset_store_number(&stripe.hits, stripe.hits + 1)
    # Last: where threads contend for its count, the caller drops it while this thread still has it.
    _incref(instance)
    return instance


cdef inline void _note(RegistryCore core, Stripe* stripe, Slot slot, double now) noexcept:
    """
    A thread used a slot at this time.

    Nothing is stored if it is the one that it used last, within the same reading of the clock, and
    the ring shows nothing newer.
    """
    if warmset_load_pointer(&stripe.last) == <PyObject*>slot:
        if (
            warmset_load_time(&slot.last_used) == now
            and stripe.stamp > warmset_load_number(&core._last_stamp)
        ):
            return
        _stamp(core, stripe, slot, now)
        warmset_fence()
    else:
        _stamp(core, stripe, slot, now)
        _turn_to(stripe, slot)
    # The stamp was stored before this is read, by the fence or the exchange: who puts the ring in
    # order takes the slot out of its list first, and reads the stamp then.
    warmset_touch(stripe, _trace(slot))


cdef inline void _stamp(RegistryCore core, Stripe* stripe, Slot slot, double now) noexcept:
    """
    Note where in the order of all uses this one stands.

    Stamps are nanoseconds of the system's clock; but each is above all that its thread gave and all
    that the ring shows, so that they order what one thread does between two ticks of the clock.
    """
    cdef double time = now if core._timer is None else warmset_clock(False)
    cdef number stamp = <number>(time * 1e9)
    stamp = max(stamp, stripe.stamp + 1, warmset_load_number(&core._last_stamp) + 1)
    stripe.stamp = stamp
    warmset_store_time(&slot.last_used, now)
    warmset_store_number(&_trace(slot).stamp, stamp)


cdef inline void _turn_to(Stripe* stripe, Slot slot) noexcept:
    """Let a thread give its last slot the uses that it owes it, and turn to this one."""
    cdef PyObject* last = <PyObject*>warmset_exchange_pointer(&stripe.last, <PyObject*>slot)
    if last != NULL:  # else its instance has left, with these uses
        warmset_add_uses(&(<Slot>last)._uses, <long long>(stripe.hits - stripe.before))
    warmset_store_number(&stripe.before, stripe.hits)


cdef void _open(Slot slot) noexcept:
    """Let readers take what is in a slot."""
    warmset_store_byte(&_trace(slot).open, True)


cdef void _shut(RegistryCore core, Slot slot) noexcept:
    """
    Let no reader take what is in a slot any more, and wait for those that do.

    After this nobody but who has the lock writes to the slot, no list refers to it, and its
    times, holds and uses are what they are.
    """
    warmset_store_byte(&_trace(slot).open, False)
    warmset_wait(core._table)
    warmset_add_uses(
        &slot._uses, <long long>warmset_late_uses(core._table, <PyObject*>slot, True)
    )
    warmset_wait(core._table)  # for those that were turning away from it, and add theirs now
    _settle(core)


cdef void _settle(RegistryCore core) noexcept:
    """
    Put the slots that were used without the lock in their places in the ring.

    Called before the ring is looked at or added to, under the lock. O(n log n) for the n that were
    used since; each was used for it.
    """
    cdef Trace* trace
    cdef Trace* following
    cdef Link* link
    cdef Link* older
    cdef number stamp
    if not FREE_THREADED:
        return
    trace = _in_order(warmset_gather(core._table))
    while trace != NULL:
        following = trace.next
        stamp = warmset_load_number(&trace.stamp)
        if stamp > core._last_stamp:
            warmset_store_number(&core._last_stamp, stamp)
        warmset_store_byte(&trace.touched, False)  # from here on it may be in a list again
        warmset_fence()
        link = &(<Slot><PyObject*>(<char*>trace - TRACE_OFFSET)).link
        if link.newer != NULL:
            _unlink(link)
            older = core._root.older
            while older != &core._root and _later(older, link):
                older = older.older
            _link(link, older)
        trace = following


cdef inline bint _later(Link* one, Link* other) noexcept:
    return _used_at(_slot_at(one)) > _used_at(_slot_at(other))


cdef inline double _used_at(PyObject* slot) noexcept:
    return warmset_load_time(&(<Slot>slot).last_used)


cdef bint _before(Trace* one, Trace* other) noexcept:
    cdef double first = _used_at(<PyObject*>(<char*>one - TRACE_OFFSET))
    cdef double second = _used_at(<PyObject*>(<char*>other - TRACE_OFFSET))
    if first != second:
        return first < second
    return warmset_load_number(&one.stamp) < warmset_load_number(&other.stamp)


cdef Trace* _in_order(Trace* traces) noexcept:
    """
    A list of traces by time and stamp, the oldest first: merge sort, from the bottom up.

    Their threads may write new ones meanwhile: then that slot stands where one of the two puts it.
    """
    cdef Trace* runs[64]  # at i a run of 2^i, or nothing
    cdef Trace* run
    cdef int i, used = 0
    while traces != NULL:
        run = traces
        traces = traces.next
        run.next = NULL
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
        run = _merged(runs[i], run)
    return run


cdef Trace* _merged(Trace* one, Trace* other) noexcept:
    cdef Trace* merged = NULL
    cdef Trace** end = &merged
    while one != NULL and other != NULL:
        if _before(one, other):
            end[0] = one
            one = one.next
        else:
            end[0] = other
            other = other.next
        end = &end[0].next
    end[0] = one if one != NULL else other
    return merged


cdef list _holders_by_stripe(RegistryCore core):
    """As `_holders`, from the rings of all stripes."""
    cdef Stripe* stripe
    cdef Hold* hold
    cdef list holders = []
    cdef list slots
    cdef Py_ssize_t seat, count, taken, i
    cdef Hold* facts
    for seat in range(warmset_load_size(&core._table.used)):
        stripe = <Stripe*>warmset_load_pointer(&core._table.stripes[seat])
        if stripe == NULL:
            continue
        count = 0
        warmset_lock(&stripe.lock)
        hold = stripe.holds.newer
        while hold != &stripe.holds:
            count += 1
            hold = hold.newer
        warmset_unlock(&stripe.lock)
        slots = [None] * count
        facts = <Hold*>PyMem_Malloc((count + 1) * sizeof(Hold))
        if facts == NULL:
            raise MemoryError
        taken = 0
        warmset_lock(&stripe.lock)
        hold = stripe.holds.newer
        while hold != &stripe.holds and taken < count:
            facts[taken] = hold[0]
            slots[taken] = <object>hold.slot  # its holder has it until the hold is out of the ring
            hold = hold.newer
            taken += 1
        warmset_unlock(&stripe.lock)
        try:
            for i in range(taken):
                holders.append((facts[i].since, (<Slot>slots[i]).name, facts[i].thread))
        finally:
            PyMem_Free(facts)
    holders.sort(key=itemgetter(0))
    return [(name, thread, since) for since, name, thread in holders]


# -- builds and holds ----------------------------------------------------------------------------


cdef tuple _build_and_hold(RegistryCore core, object class_name, unsigned int* epoch):
    """What follows a miss: the instance, and the slot where it is held, if it was kept."""
    cdef long long held
    instance, slot, held = core._build(class_name)
    epoch[0] = <unsigned int>held
    return instance, slot


cdef object _build_and_share(RegistryCore core, object class_name):
    """What follows a miss, where no lease is wanted."""
    cdef Slot slot
    cdef long long held
    # What a build gives is held, so that nobody closes it before it is in its caller's hands.
    instance, slot, held = core._build(class_name)
    if slot is not None:
        there = False
        _lock(core)
        try:
            if slot.epoch == <unsigned int>held:
                there = True
                warmset_store_byte(&slot.shared, True)
                warmset_add_holds(&slot.holds, -1)
        finally:
            _unlock(core)
        if there:
            # Its closers may have built others while it was held.
            if warmset_load_size(&core._cached) > core._max_size:
                core._trim(slot)
            if warmset_load_size(&core._blocked):
                core._made_room()
        else:
            _give_back(core, slot, <unsigned int>held, slot.last_used, True)
    return instance


cdef inline void _enter(RegistryCore core, Hold* hold, PyObject* slot) noexcept:
    """Note who holds from now on. The slot is borrowed from the holder."""
    hold.slot = slot
    hold.thread = PyThread_get_thread_ident()
    hold.since = _used_at(slot)
    if FREE_THREADED:
        warmset_link_hold(core._table, hold)
        return
    hold.newer = &core._holds
    hold.older = core._holds.older
    hold.older.newer = hold
    core._holds.older = hold


cdef inline void _leave(Hold* hold) noexcept:
    if FREE_THREADED:
        warmset_unlink_hold(hold)
        return
    if hold.newer != NULL:
        hold.newer.older = hold.older
        hold.older.newer = hold.newer
        hold.newer = hold.older = NULL


cdef int _release(RegistryCore core, Slot slot, unsigned int epoch) except -1:
    cdef double now
    if core._timer is None:
        return _give_back(core, slot, epoch, warmset_clock(core._coarse), False)
    try:
        now = _now(core)
    except BaseException:
        _give_back(core, slot, epoch, slot.last_used, False)
        raise
    return _give_back(core, slot, epoch, now, False)


cdef inline int _give_back(
    RegistryCore core, Slot slot, unsigned int epoch, double now, bint share
) except -1:
    if FREE_THREADED:
        return _give_back_without_lock(core, slot, epoch, now, share)
    if slot.epoch != epoch:
        return _give_back_departed(core, slot, epoch, share)
    slot.holds -= 1
    slot.last_used = now
    if slot.kind == STRONG:
        if core._root.older != &slot.link:
            _unlink(&slot.link)
            _link(&slot.link, core._root.older)
        if core._cached > core._max_size:
            core._trim()
    if core._blocked:
        core._made_room()
    return 0


cdef int _give_back_without_lock(
    RegistryCore core, Slot slot, unsigned int epoch, double now, bint share
) except -1:
    cdef Stripe* stripe = warmset_enter(core._table)
    cdef Departure departure = None
    cdef bint given = False
    cdef bint cached = True
    if stripe != NULL:
        given = warmset_load_byte(&_trace(slot).open) and slot.epoch == epoch and not share
        if given:
            _note(core, stripe, slot, now)
            warmset_add_holds(&slot.holds, -1)
        warmset_leave(stripe)
    if not given:
        _lock(core)
        try:
            cached = slot.epoch == epoch
            if not cached:
                departure = _take_back(slot, epoch, share)
            else:
                if share:
                    warmset_store_byte(&slot.shared, True)
                warmset_store_time(&slot.last_used, now)
                if slot.kind == STRONG:
                    _settle(core)
                    _unlink(&slot.link)
                    _link(&slot.link, core._root.older)
                    warmset_store_number(&core._last_stamp, core._last_stamp + 1)
                warmset_add_holds(&slot.holds, -1)
        finally:
            _unlock(core)
        if departure is not None:
            core._let_go(departure)
    # Its hold was taken off before these are read; who waits counted itself before it looked.
    if cached and warmset_load_size(&core._cached) > core._max_size:
        core._trim()
    if warmset_load_size(&core._blocked):
        core._made_room()
    return 0


cdef Departure _departure_of(Slot slot, unsigned int epoch):
    """What was taken out of a slot under this epoch, and is still held."""
    cdef Departure departure
    if slot._leaving:
        for departure in slot._leaving:
            if departure.epoch == epoch:
                return departure
    return None


cdef Departure _take_back(Slot slot, unsigned int epoch, bint share):
    """Take a hold off what was taken out of a slot; give it, if that was its last one."""
    cdef Departure departure = _departure_of(slot, epoch)
    if departure is not None:
        departure.shared |= share
        departure.holds -= 1
        if departure.holds == 0:
            slot._leaving.remove(departure)
            return departure
    return None


cdef int _give_back_departed(
    RegistryCore core, Slot slot, unsigned int epoch, bint share
) except -1:
    cdef Departure departure = _take_back(slot, epoch, share)
    if departure is not None:
        core._let_go(departure)
    if core._blocked:
        core._made_room()
    return 0


cdef int _propagate() except -1:
    """Let the error that a C call has set go on as a Python exception."""
    return -1


cdef object _not_found(object instance, object class_name, object method_name, PyObject* method):
    """Raise that a method is not callable or, where it is NULL, from the error of the look-up."""
    if method != NULL:
        found = _owned(method)
        raise MethodNotFoundError(
            f"{class_name}.{method_name} is not callable, "
            f"it is of type {type(found).__qualname__}",
            class_name=class_name,
            method_name=method_name,
        )
    try:
        _propagate()
    except AttributeError as error:
        raise MethodNotFoundError(
            f"the instance of {class_name!r}, a {type(instance).__qualname__}, "
            f"has no method {method_name!r}",
            class_name=class_name,
            method_name=method_name,
        ) from error


cdef object _find_injected(RegistryCore core, object class_name, object method_name):
    methods = _item(<PyObject*>core._injected, <PyObject*>class_name)
    return None if methods is None else _item(<PyObject*>methods, <PyObject*>method_name)


# -- changes: C from the first store to the last -------------------------------------------------

cdef int _detach(
    RegistryCore core, Slot slot, unsigned int epoch, int cause, list departed
) except -1:
    """
    Take the instance of this epoch out of its slot and count it, if it is still there.

    It goes to `departed`, which the caller hands on after the change.
    """
    cdef Departure departure
    if slot.kind == EMPTY or slot.epoch != epoch:
        return 0
    departure = Departure.__new__(Departure)
    if slot._leaving is None and warmset_load_holds(&slot.holds) > 0:
        leaving = []
        _guard(slot)
        slot._leaving = leaving
        _unguard(slot)
    # Making these may have run the collector: the slot may be another one now, or held.
    if slot.kind == EMPTY or slot.epoch != epoch:
        return 0
    if warmset_load_holds(&slot.holds) > 0 and (cause <= MEMORY or slot._leaving is None):
        return 0
    departed.append(departure)
    if FREE_THREADED and slot.kind == STRONG:
        _shut(core, slot)
        if slot.holds > 0 and (cause <= MEMORY or slot._leaving is None):
            # Somebody took hold of it meanwhile.
            _open(slot)
            departed.pop()
            return 0 if cause <= MEMORY else _detach(core, slot, epoch, cause, departed)
    departure.class_name = slot.name
    departure.cause = cause
    departure.epoch = epoch
    departure.instance = slot._instance
    departure.routes = slot.routes
    departure.built_at = slot.built_at
    departure.last_used = slot.last_used
    departure.build_seconds = slot.build_seconds
    departure.uses = slot._uses
    departure.bytes = slot.bytes
    departure.serial = slot.serial
    departure.holds = slot.holds
    departure.held = slot.holds > 0
    departure.shared = slot.shared
    departure.weak = slot.kind == WEAK
    if slot.kind == STRONG:
        _unlink(&slot.link)
        warmset_add_size(&core._cached, -1)
        core._bytes -= max(slot.bytes, 0)
    else:
        core._weak -= 1
    slot.kind = EMPTY
    slot.bytes = -1
    _guard(slot)
    slot._instance = None
    _unguard(slot)
    slot.routes = None
    slot.recent = None
    slot.holds = 0
    slot.shared = False
    slot.moves += 1
    slot.epoch = slot.moves
    core._removals[cause] += 1
    if cause <= COLLECTED:
        core._evictions += 1
    if departure.held and not departure.weak:
        slot._leaving.append(departure)
    if core._queue is not None:
        core._queue.append(departure)
    return 0


cdef bint _revive(RegistryCore core, Slot slot, double now) except -1:
    """Put back what was taken out of a slot last and is still held; it keeps its epoch."""
    cdef Departure departure
    _settle(core)
    if slot.kind != EMPTY or not slot._leaving:
        return False
    departure = slot._leaving[len(slot._leaving) - 1]
    if departure.cause == REPLACED or departure.cause == AGED or departure.cause == RECYCLED:
        return False
    slot._leaving.pop()
    slot.moves += 1
    slot.epoch = departure.epoch
    slot.holds = departure.holds
    slot.shared = departure.shared
    slot.routes = departure.routes
    slot.serial = departure.serial
    slot.build_seconds = departure.build_seconds
    _attach(
        core,
        slot,
        departure.instance,
        STRONG,
        core._root.older,
        departure.built_at,
        now,
        departure.uses,
    )
    slot.bytes = departure.bytes
    core._bytes += max(slot.bytes, 0)
    departure.holds = 0
    departure.instance = None
    return True


cdef void _attach(
    RegistryCore core,
    Slot slot,
    object content,
    unsigned char kind,
    Link* older,
    double built_at,
    double last_used,
    long long uses,
) noexcept:
    """Put an instance into an empty slot, linked next to `older`; a weak one is not linked."""
    slot.built_at = built_at
    slot.last_used = last_used
    slot._uses = uses
    _guard(slot)
    slot._instance = content
    warmset_share_reference(<PyObject*>content)
    _unguard(slot)
    slot.kind = kind
    if kind == STRONG:
        _link(&slot.link, older)
        warmset_add_size(&core._cached, 1)
        # What is used from here on is newer.
        warmset_store_number(&core._last_stamp, core._last_stamp + 1)
        if FREE_THREADED:
            _open(slot)
    else:
        core._weak += 1


cdef int _vacate(RegistryCore core, Slot slot, int cause, list departed) except -1:
    """Empty a slot, and let no build that is under way fill it."""
    cdef Departure departure
    if slot.kind == EMPTY:
        slot.moves += 1
        slot.epoch = slot.moves
    _detach(core, slot, slot.epoch, cause, departed)
    if cause == REPLACED and slot._leaving:
        for departure in slot._leaving:
            departure.cause = REPLACED  # of another class now: not revived
    return 0


cdef int _make_room(
    RegistryCore core, Py_ssize_t limit, list departed, Slot spare
) except -1:
    """Evict the least recent instances that nobody holds until `limit` are cached."""
    cdef PyObject* found
    cdef Slot slot
    while core._cached > limit:
        found = _oldest_free(core, spare)
        if found == NULL:
            break
        slot = <Slot>found
        _detach(core, slot, slot.epoch, SIZE, departed)
    return 0


cdef int _expire(RegistryCore core, Slot slot, double now, list departed) except -1:
    """Evict what is in a slot if it is past its age, or was idle for too long."""
    # Written so that a clock that gives NaN makes it leave.
    if not now - slot.built_at <= slot.age_limit:
        return _detach(core, slot, slot.epoch, AGED, departed)
    if not now - _used_at(<PyObject*>slot) <= slot.idle_limit and not slot._pinned:
        return _detach(core, slot, slot.epoch, IDLE, departed)
    return 0


cdef void _choose_clock(RegistryCore core, double idle_limit, double age_limit) noexcept:
    """Take the precise clock where the tick of the coarse one is not small against a limit."""
    if warmset_tick() * TICKS_IN_TTL > min(idle_limit, age_limit):
        core._coarse = False


cdef PyObject* _oldest_free(RegistryCore core, Slot spare) noexcept:
    """
    The least recent slot that is not held, pinned or to be spared, borrowed; or NULL.

    It is looked for anew at each step of a loop: a detachment makes an object, which may run the
    collector, and what stood next in the ring need not stand there any more.
    """
    cdef Link* link
    cdef PyObject* slot
    _settle(core)
    link = core._root.newer
    while link != &core._root:
        slot = _slot_at(link)
        if (
            warmset_load_holds(&(<Slot>slot).holds) == 0
            and not (<Slot>slot)._pinned
            and slot != <PyObject*>spare
        ):
            return slot
        link = link.newer
    return NULL


cdef Link* _place(RegistryCore core, Slot slot, double last_used) noexcept:
    """The neighbour on the older side that a last use at this time gives to a slot."""
    cdef Link* older
    cdef PyObject* other
    _settle(core)
    older = core._root.older
    while older != &core._root:
        other = _slot_at(older)
        if older != &slot.link and _used_at(other) <= last_used:
            break
        older = older.older
    return older


cdef list _cached_slots(RegistryCore core, bint from_oldest):
    cdef list slots = [None] * core._cached  # no allocation while the ring is walked
    cdef Link* link
    cdef Py_ssize_t i = 0
    _settle(core)
    link = core._root.newer if from_oldest else core._root.older
    while link != &core._root and i < len(slots):
        slots[i] = <object>_slot_at(link)
        link = link.newer if from_oldest else link.older
        i += 1
    del slots[i:]  # making the list may have run the collector, and somebody left
    return slots


# -- leases --------------------------------------------------------------------------------------

@cython.final
cdef class Lease:
    """
    Holds an instance for the time of a ``with`` block; made by `RegistryCore.use`.

    It may be entered again after it was left, but not while it is held. A lease that is dropped
    without being left gives its instance back.
    """

    cdef RegistryCore _core
    cdef str _class_name
    cdef readonly object _instance
    cdef Slot _slot
    cdef Hold _hold
    cdef unsigned int _epoch
    cdef int _state

    def __cinit__(self, RegistryCore core not None, class_name):
        self._core = core
        self._class_name = class_name

    def __enter__(self):
        cdef RegistryCore core = self._core
        cdef PyObject* found
        cdef PyObject* instance = NULL
        cdef double now
        # From here on it is nobody else's, however long a build takes.
        if not warmset_swap_state(&self._state, FREE, ENTERING):
            raise RuntimeError(f"this lease already holds {self._class_name!r}")
        try:
            now = _now(core)
            if FREE_THREADED:
                found = NULL
                instance = _look_up(
                    core, self._class_name, now, True, True, &found, &self._epoch
                )
                if found != NULL:
                    self._slot = _owned(found)
            else:
                found = _find(core, self._class_name)
                if found != NULL:
                    self._slot = <Slot>found
                    instance = _warm(core, self._slot, now, True, True, &self._epoch)
            if instance != NULL:
                self._instance = _owned(instance)
            else:
                self._instance, self._slot = _build_and_hold(
                    core, self._class_name, &self._epoch
                )
            # A lease may be left by another thread than took it.
            warmset_share_reference(<PyObject*>self._instance)
        except BaseException:
            self._slot = None
            self._state = FREE
            raise
        if self._slot is not None:
            _enter(core, &self._hold, <PyObject*>self._slot)
        self._state = HELD
        return self._instance

    def _enter_warm(self, bint count=True):
        """Hold what is warm, and tell whether anything is; else, at most, count a miss."""
        cdef RegistryCore core = self._core
        cdef double now = _now(core)
        cdef PyObject* instance
        self._slot = _item(<PyObject*>core._slots, <PyObject*>self._class_name)
        if self._slot is None:
            warmset_add_number(&core._misses, count)
            return False
        instance = _warm(core, self._slot, now, True, count, &self._epoch)
        if instance == NULL:
            return False
        self._instance = _owned(instance)
        warmset_share_reference(<PyObject*>self._instance)
        _enter(core, &self._hold, <PyObject*>self._slot)
        self._state = HELD
        return True

    def _enter_built(self):
        """Go on after a miss: hold what is built here, or by another thread."""
        self._instance, self._slot = _build_and_hold(self._core, self._class_name, &self._epoch)
        warmset_share_reference(<PyObject*>self._instance)
        if self._slot is not None:
            _enter(self._core, &self._hold, <PyObject*>self._slot)
        self._state = HELD

    def _again(self):
        """Another lease on what this one holds; it is no look-up."""
        cdef Lease lease = Lease(self._core, self._class_name)
        cdef Departure departure
        lease._instance, lease._slot, lease._epoch = self._instance, self._slot, self._epoch
        warmset_share_reference(<PyObject*>lease._instance)
        if lease._slot is not None:
            _lock(self._core)
            try:
                if lease._slot.epoch == lease._epoch:
                    warmset_add_holds(&lease._slot.holds, 1)
                else:
                    departure = _departure_of(lease._slot, lease._epoch)
                    if departure is not None:
                        departure.holds += 1
            finally:
                _unlock(self._core)
            _enter(lease._core, &lease._hold, <PyObject*>lease._slot)
        lease._state = HELD
        return lease

    def _share(self):
        """From now on somebody else has the instance, too, and holds no lease on it."""
        cdef Departure departure
        if self._slot is not None:
            _lock(self._core)
            try:
                if self._slot.epoch == self._epoch:
                    warmset_store_byte(&self._slot.shared, True)
                else:
                    departure = _departure_of(self._slot, self._epoch)
                    if departure is not None:
                        departure.shared = True
            finally:
                _unlock(self._core)

    def __dealloc__(self):
        _leave(&self._hold)

    def __exit__(self, *exception):
        _end(self)

    def __del__(self):
        _end(self)

    def __reduce__(self):
        raise TypeError("a lease holds something in this process: it cannot be pickled or copied")

    def __repr__(self):
        state = "held" if self._state == HELD else "not held"
        return f"<warmset lease of {self._class_name!r}, {state}>"


cdef int _end(Lease lease) except -1:
    """Give back what a lease holds, if it holds anything."""
    cdef Slot slot
    if warmset_swap_state(&lease._state, HELD, FREE):
        slot = lease._slot
        _leave(&lease._hold)
        lease._instance = lease._slot = None
        if slot is not None:
            _release(lease._core, slot, lease._epoch)
    return 0


cdef Lease _adopt(RegistryCore core, object class_name, Slot slot, unsigned int epoch):
    """A lease that takes over the hold of a call, to give it back."""
    cdef Lease lease = Lease(core, class_name)
    lease._slot = slot
    lease._epoch = epoch
    lease._state = HELD
    _enter(core, &lease._hold, <PyObject*>slot)
    return lease


# -- handles -------------------------------------------------------------------------------------

@cython.final
cdef class Handle:
    """
    Calls one method of one class's instance, building it when it is not warm.

    Made by `RegistryCore.bind`. Each call looks the instance up and holds it until the method
    returns, or the generator or coroutine that it returned has ended; the arguments go to the
    method as they are. A handle is pickled by its names, with its registry.
    """

    cdef void* _vectorcall
    cdef RegistryCore _core
    cdef Slot _slot
    cdef object _injected
    cdef Py_ssize_t _layout
    cdef readonly str class_name
    cdef readonly str method_name

    def __cinit__(self, RegistryCore core not None, class_name, method_name):
        self._vectorcall = <void*>_call_handle
        self._core = core
        self.class_name = class_name
        self.method_name = method_name
        self._layout = -1

    def __call__(self, /, *args, **kwargs):
        return PyVectorcall_Call(self, args, kwargs)

    def __reduce__(self):
        from operator import methodcaller

        return methodcaller("bind", self.class_name, self.method_name), (self._core,)

    def __repr__(self):
        return f"<warmset handle of {self.class_name}.{self.method_name}>"


cdef object _call_handle(PyObject* self, PyObject* const* args, size_t nargsf, PyObject* kwnames):
    # The caller holds the handle, and the handle its core: neither is counted, here or below.
    cdef PyObject* core = <PyObject*>(<Handle>self)._core
    return _call_with(<Handle>self, <RegistryCore>core, args, nargsf, kwnames)


cdef inline object _call_with(
    Handle handle, RegistryCore core, PyObject* const* args, size_t nargsf, PyObject* kwnames
):
    # The slot is counted: a handle is settled anew while its method runs if a name was registered.
    cdef Slot slot
    cdef PyObject* instance = NULL
    cdef PyObject* result
    cdef Hold hold
    cdef unsigned int epoch = 0
    cdef PyObject* held = NULL
    cdef PyObject* given = NULL
    cdef double now = _now(core)
    if FREE_THREADED:
        instance = _look_up_by_handle(handle, core, now, &held, &given, &epoch)
        if given != NULL:
            method = _owned(given)
            result = _call(given, args, nargsf, kwnames)
            if result == NULL:
                _propagate()
            return _owned(result)
        slot = None
        if held != NULL:
            slot = _owned(held)
    else:
        if handle._layout != core._layout:
            _find_again(handle, core)
        if handle._injected is not None:
            method = handle._injected
            result = _call(<PyObject*>method, args, nargsf, kwnames)
            if result == NULL:
                _propagate()
            return _owned(result)
        slot = handle._slot
        if slot is None:
            core._misses += 1
        else:
            instance = _warm(core, slot, now, True, True, &epoch)
    if instance != NULL:
        warm = _owned(instance)
    else:
        warm, slot = _build_and_hold(core, handle.class_name, &epoch)
    hold.newer = NULL
    if slot is not None:
        _enter(core, &hold, <PyObject*>slot)
    try:
        result = _call_method(
            <PyObject*>warm,
            handle.class_name,
            handle.method_name,
            args,
            nargsf,
            kwnames,
        )
        if not _goes_on(result) or slot is None:
            return _owned(result)
        outcome = _owned(result)
        lease = _adopt(core, handle.class_name, slot, epoch)
        slot = None
        return core._prolong(lease, outcome)
    finally:
        _leave(&hold)
        warm = None  # at the last release, who else refers to it is counted
        if slot is not None:
            _release(core, slot, epoch)


cdef inline bint _goes_on(PyObject* result) noexcept:
    """Whether what a method returned goes on running, and needs its instance."""
    return PyGen_CheckExact(result) or PyCoro_CheckExact(result) or PyAsyncGen_CheckExact(result)


cdef int _find_again(Handle handle, RegistryCore core) except -1:
    """Find again what the names mean, after a class or a method was added or taken away."""
    cdef Py_ssize_t layout = core._layout
    injected = _find_injected(core, handle.class_name, handle.method_name)
    method = None if injected is None else (<Injected>injected).method
    slot = _item(<PyObject*>core._slots, <PyObject*>handle.class_name)
    with cython.critical_section(handle):
        # The old ones stay in a local until the handle is whole: dropping them may call it.
        before = handle._injected, handle._slot
        handle._layout = -1
        handle._injected = method
        handle._slot = slot
        if FREE_THREADED:
            warmset_wait(core._table)
        warmset_add_size(&handle._layout, layout + 1)
    del before
    return 0


cdef PyObject* _look_up_by_handle(
    Handle handle,
    RegistryCore core,
    double now,
    PyObject** held,
    PyObject** method,
    unsigned int* epoch,
) except? NULL:
    """
    A new reference to the instance that a handle is for; NULL after counting a miss.

    `held` becomes a new reference to its slot, also after a miss; or NULL. Where a method was
    injected, `method` becomes a new reference to that, and nothing else is done.
    """
    cdef Slot slot
    cdef Stripe* stripe
    cdef PyObject* instance = NULL
    cdef bint found = False
    if warmset_load_size(&handle._layout) == warmset_load_size(&core._layout):
        stripe = warmset_enter(core._table)
        if stripe != NULL:
            # Again: from here on the two that it refers to stay, whatever is put in their places.
            found = warmset_load_size(&handle._layout) == warmset_load_size(&core._layout)
            if found:
                if <PyObject*>handle._injected != <PyObject*>None:
                    method[0] = <PyObject*>handle._injected
                    _incref(method[0])
                elif <PyObject*>handle._slot != <PyObject*>None:
                    held[0] = <PyObject*>handle._slot
                    _incref(held[0])
                    instance = _read(core, stripe, <Slot>held[0], now, True, True, epoch)
            warmset_leave(stripe)
    if not found:
        if warmset_load_size(&handle._layout) != warmset_load_size(&core._layout):
            _find_again(handle, core)
        with cython.critical_section(handle):
            injected, slot = handle._injected, handle._slot
        if warmset_own(core._table) == NULL:
            _lock(core)
            try:
                warmset_sit_down(core._table)
            finally:
                _unlock(core)
        if injected is not None:
            method[0] = <PyObject*>injected
            Py_INCREF(injected)
        elif slot is not None:
            held[0] = <PyObject*>slot
            Py_INCREF(slot)
    if instance != NULL or method[0] != NULL:
        return instance
    if held[0] == NULL:
        warmset_add_number(&core._misses, 1)
        return NULL
    try:
        return _warm_or_shut(core, <Slot>held[0], now, True, True, epoch)
    except BaseException:
        slot = _owned(held[0])
        held[0] = NULL
        raise


cdef inline PyObject* _call(
    PyObject* callable, PyObject* const* args, size_t nargsf, PyObject* kwnames
) noexcept:
    """
    Call what is not ours; on an error NULL, with the error set.

    A chain of calls that are all in C ends in a RecursionError.
    """
    cdef PyObject* result
    if PyFunction_Check(callable):  # it counts its own frames
        return PyObject_Vectorcall(callable, args, nargsf, kwnames)
    if Py_EnterRecursiveCall(b" in a call of warmset"):
        return NULL
    result = PyObject_Vectorcall(callable, args, nargsf, kwnames)
    Py_LeaveRecursiveCall()
    return result


cdef inline PyObject* _method_of(
    object instance, object class_name, object method_name, bint* bound
) except NULL:
    """
    A new reference to the method of a name.

    It is bound; or else it is the plain function of the type, to be called with the instance before
    the arguments, and no object was made to bind the two.
    """
    cdef PyObject* method = NULL
    bound[0] = not _PyObject_GetMethod(
        <PyObject*>instance, <PyObject*>method_name, &method
    )
    if method == NULL or not PyCallable_Check(method):
        _not_found(instance, class_name, method_name, method)
    return method


cdef PyObject* _call_method(
    PyObject* instance,
    object class_name,
    object method_name,
    PyObject* const* args,
    size_t nargsf,
    PyObject* kwnames,
) except NULL:
    """Call the method of a name, with the instance before the arguments where it is not bound."""
    cdef PyObject* small[STACK + 1]
    cdef PyObject** stack
    cdef PyObject* saved
    cdef PyObject* method
    cdef PyObject* result
    cdef bint bound = False
    cdef Py_ssize_t count = PyVectorcall_NARGS(nargsf)
    cdef Py_ssize_t total = count, i
    method = _method_of(<object>instance, class_name, method_name, &bound)
    if bound:
        result = _call(method, args, nargsf, kwnames)
    elif nargsf & PY_VECTORCALL_ARGUMENTS_OFFSET:
        # The caller lends the place before its arguments.
        stack = <PyObject**>args - 1
        saved = stack[0]
        stack[0] = instance
        result = _call(method, stack, <size_t>(count + 1), kwnames)
        stack[0] = saved
    else:
        if kwnames != NULL:
            total += PyTuple_GET_SIZE(kwnames)
        stack = small
        if total > STACK:
            stack = <PyObject**>PyMem_Malloc((total + 1) * sizeof(PyObject*))
        if stack == NULL:
            result = PyErr_NoMemory()
        else:
            stack[0] = instance
            for i in range(total):
                stack[i + 1] = args[i]
            result = _call(method, stack, <size_t>(count + 1), kwnames)
            if stack != small:
                PyMem_Free(stack)
    _decref(method)
    if result == NULL:
        _propagate()
    return result


# -- execute -------------------------------------------------------------------------------------

@cython.final
cdef class Parameter:
    """One parameter of a route: whether it must be given, and which exact types are known good."""

    cdef bint required
    cdef tuple types

    def __cinit__(self, bint required, types):
        self.required = required
        self.types = types


@cython.final
cdef class Route:
    """
    What `execute` checks of a payload without a call into Python.

    It only ever says yes; whatever it cannot decide goes to the plan, which decides and explains.
    """

    cdef object name  # of the method
    cdef object token
    cdef str label  # of a builtin method, whose type alone does not tell it
    cdef object plan
    cdef dict parameters
    cdef Py_ssize_t required
    # The names of a payload that fitted, and their parameters: the next one with the same names, by
    # identity (those in a caller's code are interned), needs no look-up of them.
    cdef tuple seen
    cdef list positions
    cdef unsigned int unseen  # payloads with other names since

    def __cinit__(self, token, plan):
        self.token = token
        self.plan = plan
        self.parameters = None
        if plan.direct is not None:
            self.parameters = {
                name: Parameter(required, types) for name, required, types in plan.direct
            }
            self.required = sum([required for _, required, _ in plan.direct])


cdef class ExecutorCore:
    """
    The part of an executor that a call on a warm instance runs through.

    Args:
        registry: Where instances come from.
    """

    cdef readonly RegistryCore _registry
    cdef Table* _table  # of what the threads have routed; on an interpreter with a lock none
    cdef long long routes
    cdef readonly long long _refusals
    cdef readonly long long _drops_prevented

    def __cinit__(self, *args, **kwargs):
        if FREE_THREADED:
            self._table = warmset_new_table()
            if self._table == NULL:
                raise MemoryError

    def __init__(self, RegistryCore registry not None):
        self._registry = registry

    def __dealloc__(self):
        if FREE_THREADED:
            warmset_drop_table(self._table)

    @property
    def _routes(self):
        return self.routes + (warmset_hits(self._table) if FREE_THREADED else 0)

    def _compile(self, method):
        """The executor overrides it."""
        raise NotImplementedError

    def _route(self, plan, class_name, method_name, arguments):
        """The executor overrides it."""
        raise NotImplementedError

    def _unavailable(self, class_name, method_name, error):
        """The executor overrides it."""
        raise error

    def _prepare(self, source, class_name, method_name, payload):
        """What `execute` does up to the call: the method of a held instance, and its arguments."""
        cdef Route route
        cdef Lease lease
        cdef PyObject* found
        if type(source) is Injected:
            method = (<Injected>source).method
            route = _plan_of(self, <Injected>source)
        else:
            lease = source
            found = PyObject_GetAttr(<PyObject*>lease._instance, <PyObject*>method_name)
            if found == NULL or not PyCallable_Check(found):
                _not_found(lease._instance, class_name, method_name, found)
            method = _owned(found)
            route = _route_of(
                self, lease._slot, lease._epoch, lease._instance, method_name, method
            )
        _count_route(self)
        args, keywords = self._route(route.plan, class_name, method_name, payload)
        return method, args, keywords

    def _refused(self, long long drops):
        """Count a payload that was refused, and the arguments that nothing would have taken."""
        warmset_add_number(&self._refusals, 1)
        warmset_add_number(&self._drops_prevented, drops)


cdef object _execute(
    PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* kwnames
):
    # The caller holds the executor, and that its registry: neither is counted, here or below.
    cdef PyObject* core = <PyObject*>(<ExecutorCore>self)._registry
    return _execute_with(<ExecutorCore>self, <RegistryCore>core, args, count, kwnames)


cdef inline object _execute_with(
    ExecutorCore executor,
    RegistryCore core,
    PyObject* const* args,
    Py_ssize_t count,
    PyObject* kwnames,
):
    cdef Slot slot = None
    cdef Hold hold
    cdef PyObject* found
    cdef PyObject* instance = NULL
    cdef unsigned int epoch = 0
    cdef double now
    if core is None:
        raise AttributeError("this executor was not initialised")
    if count != 2:
        return _execute_named(executor, args, count, kwnames)
    class_name = <object>args[0]
    method_name = <object>args[1]
    if type(class_name) is not str and class_name != "":
        class_name = check_name(class_name)
    if type(method_name) is not str and method_name != "":
        method_name = check_name(method_name)
    if not PyUnicode_GET_LENGTH(<PyObject*>class_name) or not PyUnicode_GET_LENGTH(
        <PyObject*>method_name
    ):
        return _execute_named(executor, args, count, kwnames)
    if core._injected:
        injected = _find_injected(core, class_name, method_name)
        if injected is not None:
            return _execute_injected(
                executor, <Injected>injected, class_name, method_name, args + 2, kwnames
            )
    now = _now(core)
    if FREE_THREADED:
        found = NULL
        instance = _look_up(core, class_name, now, True, True, &found, &epoch)
        if found != NULL:
            slot = _owned(found)
    else:
        found = _find(core, class_name)
        if found != NULL:
            slot = <Slot>found
            instance = _warm(core, slot, now, True, True, &epoch)
    if instance != NULL:
        warm = _owned(instance)
    else:
        try:
            warm, slot = _build_and_hold(core, class_name, &epoch)
        except MethodRegistryError as error:
            return executor._unavailable(class_name, method_name, error)
    hold.newer = NULL
    if slot is not None:
        _enter(core, &hold, <PyObject*>slot)
    try:
        result = _run(executor, core, slot, epoch, warm, class_name, method_name, args + 2, kwnames)
        if slot is not None and _goes_on(<PyObject*>result):
            lease = _adopt(core, class_name, slot, epoch)
            slot = None
            return core._prolong(lease, result)
        return result
    finally:
        _leave(&hold)
        warm = None  # at the last release, who else refers to it is counted
        if slot is not None:
            _release(core, slot, epoch)


cdef object _run(
    ExecutorCore executor,
    RegistryCore core,
    Slot slot,
    unsigned int epoch,
    object instance,
    object class_name,
    object method_name,
    PyObject* const* values,
    PyObject* kwnames,
):
    cdef Route route
    cdef PyObject* found
    cdef Py_ssize_t count
    cdef bint bound = False
    try:
        found = _method_of(instance, class_name, method_name, &bound)
    except MethodNotFoundError as error:
        return executor._unavailable(class_name, method_name, error)
    method = _owned(found)
    if not bound:
        if FREE_THREADED:
            route = _known_route(core, slot, epoch, method_name)
            if route is not None and <PyObject*>route.token == found:
                count = 0 if kwnames == NULL else PyTuple_GET_SIZE(kwnames)
                if count <= STACK and _fits(route, values, kwnames, count):
                    _count_route(executor)
                    return _call_function(found, <PyObject*>instance, values, count, kwnames)
        elif slot is not None:
            route = slot.recent
            if (
                route is not None
                and <PyObject*>route.name == <PyObject*>method_name
                and <PyObject*>route.token == found
            ):
                count = 0 if kwnames == NULL else PyTuple_GET_SIZE(kwnames)
                if count <= STACK and _fits(route, values, kwnames, count):
                    executor.routes += 1
                    return _call_function(found, <PyObject*>instance, values, count, kwnames)
        method = PyMethod_New(found, <PyObject*>instance)
    route = _route_of(executor, slot, epoch, instance, method_name, method)
    return _call_routed(executor, route, class_name, method_name, method, values, kwnames)


cdef Route _known_route(RegistryCore core, Slot slot, unsigned int epoch, object method_name):
    """A route of what is still in a slot, found without a lock."""
    cdef Stripe* stripe
    cdef PyObject* routes = NULL
    if slot is None:
        return None
    stripe = warmset_enter(core._table)
    if stripe == NULL:
        return None
    if warmset_load_byte(&_trace(slot).open) and slot.epoch == epoch:
        routes = <PyObject*>slot.routes
        warmset_fence_after_load()
        _incref(routes)
    warmset_leave(stripe)
    if routes == NULL:
        return None
    known = _owned(routes)
    return None if known is None else _item(routes, <PyObject*>method_name)


cdef inline void _count_route(ExecutorCore executor) noexcept:
    cdef Stripe* stripe
    if not FREE_THREADED:
        executor.routes += 1
        return
    stripe = warmset_own(executor._table)
    if stripe == NULL:
        stripe = _first_stripe(executor)
    if stripe == NULL:
        warmset_add_number(&executor.routes, 1)
    else:
        warmset_store_number(&stripe.hits, stripe.hits + 1)


cdef Stripe* _first_stripe(ExecutorCore executor) noexcept:
    """A stripe for a thread that calls for the first time, or NULL."""
    _lock(executor._registry)
    warmset_sit_down(executor._table)
    _unlock(executor._registry)
    return warmset_own(executor._table)


cdef Route _route_of(
    ExecutorCore executor,
    Slot slot,
    unsigned int epoch,
    object instance,
    object method_name,
    object method,
):
    """
    The compiled signature of a method, from the slot where it is still true.

    It is true while the same function answers to the name, so a method that is replaced on the
    class or on the instance is compiled anew. A slot drops its routes with its instance.
    """
    cdef PyObject* token
    cdef PyObject* known
    cdef Route route
    cdef str label = None
    if PyMethod_Check(<PyObject*>method):
        token = PyMethod_GET_FUNCTION(<PyObject*>method)
        if slot is not None and slot.kind == WEAK:
            own = getattr(type(instance), method_name, None)
            if <PyObject*>own != token:
                # The instance brought it along: it may refer to it.
                return Route(None, executor._compile(method))
    elif type(method) is BuiltinMethodType and method.__self__ is instance:
        token = <PyObject*>Py_TYPE(<PyObject*>instance)
        label = method.__name__
    elif slot is not None and slot.kind == STRONG:
        token = <PyObject*>method  # of the instance, which the slot keeps alive anyhow
    else:
        return Route(None, executor._compile(method))
    if FREE_THREADED:
        route = _known_route(executor._registry, slot, epoch, method_name)
        if (
            route is not None
            and <PyObject*>route.token == token
            and (label is None or route.label == label)
        ):
            return route
    elif slot is not None and slot.routes is not None:
        known = PyDict_GetItemWithError(slot.routes, method_name)
        if (
            known != NULL
            and <PyObject*>(<Route>known).token == token
            and (label is None or (<Route>known).label == label)
        ):
            route = <Route>known
            if slot.epoch == epoch:
                slot.recent = route
            return route
    route = Route(<object>token, executor._compile(method))
    route.name = method_name
    route.label = label
    if slot is not None:
        fresh = {}
        _lock(executor._registry)
        try:
            if slot.kind != EMPTY and slot.epoch == epoch:
                if slot.routes is None:
                    warmset_fence()  # it is whole before anybody sees it
                    slot.routes = fresh
                _before = slot.routes.get(method_name)  # dropped after the change
                slot.routes[method_name] = route
        finally:
            _unlock(executor._registry)
    return route


cdef object _call_routed(
    ExecutorCore executor,
    Route route,
    object class_name,
    object method_name,
    object method,
    PyObject* const* values,
    PyObject* kwnames,
):
    cdef PyObject* result
    cdef Py_ssize_t i, count = 0
    if kwnames != NULL:
        count = PyTuple_GET_SIZE(kwnames)
    _count_route(executor)
    if not _fits(route, values, kwnames, count):
        payload = {
            <object>PyTuple_GET_ITEM(kwnames, i): <object>values[i] for i in range(count)
        }
        args, keywords = executor._route(route.plan, class_name, method_name, payload)
        return method(*args, **keywords)
    if PyMethod_Check(<PyObject*>method) and count <= STACK:
        return _call_function(
            PyMethod_GET_FUNCTION(<PyObject*>method),
            PyMethod_GET_SELF(<PyObject*>method),
            values,
            count,
            kwnames,
        )
    result = _call(<PyObject*>method, values, 0, kwnames)
    if result == NULL:
        _propagate()
    return _owned(result)


cdef object _call_function(
    PyObject* function,
    PyObject* instance,
    PyObject* const* values,
    Py_ssize_t count,
    PyObject* kwnames,
):
    """The function itself, with its self before the values: nothing is made to bind the two."""
    cdef PyObject* stack[STACK + 2]
    cdef PyObject* result
    cdef Py_ssize_t i
    stack[1] = instance
    for i in range(count):
        stack[i + 2] = values[i]
    result = _call(function, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, kwnames)
    if result == NULL:
        _propagate()
    return _owned(result)


cdef bint _fits(
    Route route, PyObject* const* values, PyObject* kwnames, Py_ssize_t count
) except -1:
    """Whether the payload is known good: all that is required, nothing else, of exact types."""
    cdef Py_ssize_t i, required = 0
    cdef PyObject* found
    cdef list positions
    if route.parameters is None:
        return False
    if _has_seen(route, kwnames, count):
        for i in range(count):
            found = PyList_GET_ITEM(route.positions, i)
            if not _is_of((<Parameter>found).types, values[i]):
                return False
        return True
    for i in range(count):
        found = PyDict_GetItemWithError(
            route.parameters, <object>PyTuple_GET_ITEM(kwnames, i)
        )
        if found == NULL or not _is_of((<Parameter>found).types, values[i]):
            return False
        required += (<Parameter>found).required
    if required != route.required:
        return False
    if FREE_THREADED:
        if count and <PyObject*>route.seen == <PyObject*>None:
            _see(route, kwnames, count)
        return True
    # Callers with different names take turns at being seen, not at each call.
    if count and (route.seen is None or route.unseen >= 16):
        positions = [
            route.parameters[<object>PyTuple_GET_ITEM(kwnames, i)] for i in range(count)
        ]
        route.seen = None  # at no moment do the two not belong together
        route.positions = positions
        route.seen = <tuple>kwnames
        route.unseen = 0
    route.unseen += 1
    return True


cdef int _see(Route route, PyObject* kwnames, Py_ssize_t count) except -1:
    """Remember the names of a payload, once: others may read them at any time."""
    cdef Py_ssize_t i
    cdef list positions = [
        route.parameters[<object>PyTuple_GET_ITEM(kwnames, i)] for i in range(count)
    ]
    with cython.critical_section(route):
        if route.seen is None:
            route.positions = positions
            warmset_fence()
            route.seen = <tuple>kwnames
    return 0


cdef inline bint _has_seen(Route route, PyObject* kwnames, Py_ssize_t count) noexcept:
    cdef PyObject* seen = <PyObject*>route.seen
    cdef Py_ssize_t i
    if seen == <PyObject*>None or PyTuple_GET_SIZE(seen) != count:
        return False
    warmset_fence_after_load()
    if seen != kwnames:
        for i in range(count):
            if PyTuple_GET_ITEM(seen, i) != PyTuple_GET_ITEM(kwnames, i):
                return False
    return True


cdef inline bint _is_of(tuple types, PyObject* value) noexcept:
    """Whether a value is of one of some exact types; None takes any."""
    cdef Py_ssize_t i
    if <PyObject*>types == <PyObject*>None:
        return True
    for i in range(PyTuple_GET_SIZE(<PyObject*>types)):
        if <PyObject*>Py_TYPE(value) == PyTuple_GET_ITEM(<PyObject*>types, i):
            return True
    return False


cdef object _execute_injected(
    ExecutorCore executor,
    Injected injected,
    object class_name,
    object method_name,
    PyObject* const* values,
    PyObject* kwnames,
):
    return _call_routed(
        executor,
        _plan_of(executor, injected),
        class_name,
        method_name,
        injected.method,
        values,
        kwnames,
    )


cdef Route _plan_of(ExecutorCore executor, Injected injected):
    """The route of a method that was given from outside, compiled at its first call."""
    if injected.plan is None:
        plan = Route(None, executor._compile(injected.method))
        with cython.critical_section(injected):
            if injected.plan is None:  # once it is there it stays: it may be read at any time
                injected.plan = plan
    return injected.plan


cdef object _execute_named(
    ExecutorCore executor, PyObject* const* args, Py_ssize_t count, PyObject* kwnames
):
    """The two names, or one of them, stand in the payload."""
    cdef Py_ssize_t i
    if count > 2:
        raise TypeError(
            f"execute() takes a class name and a method name, and all else by keyword; "
            f"got {count} positional arguments"
        )
    payload = {}
    if kwnames != NULL:
        for i in range(PyTuple_GET_SIZE(kwnames)):
            payload[<object>PyTuple_GET_ITEM(kwnames, i)] = <object>args[count + i]
    class_name = <object>args[0] if count else ""
    method_name = <object>args[1] if count > 1 else ""
    if class_name == "":
        class_name = payload.pop("class_name", "")
    if method_name == "":
        method_name = payload.pop("method_name", "")
    if class_name == "" or method_name == "":
        raise TypeError("execute() needs a class name and a method name")
    # Ours, and not one that overrides it and has been passed already.
    return ExecutorCore.execute(executor, class_name, method_name, **payload)


cdef PyMethodDef _execute_def
_execute_def.ml_name = b"execute"
_execute_def.ml_meth = <void*>_execute
_execute_def.ml_flags = METH_FASTCALL | METH_KEYWORDS
_execute_def.ml_doc = b"""execute($self, class_name='', method_name='', /, **arguments)
--

Call a method by name, its arguments routed by name and checked before it runs.

Args:
    class_name: A registered name, or one that a method was injected for. The two names
        may also be given by keyword, where the method has no parameters of these names.
    method_name: The method.
    arguments: The payload, by parameter name. The instance is held while the method runs.

Returns:
    What the method returned. If that is a generator or a coroutine, the instance is held
    until it has ended.

Raises:
    ArgumentValidationError: Arguments are missing, unexpected or mistyped; the method did
        not run.
    AttributeError: The method cannot be had, with the cause chained. In degraded mode
        None is returned and a warning logged instead.

Safe under threads; O(arguments) beyond the method's own cost on a hit.
"""

cdef Handle _handle = Handle(RegistryCore(), "", "")
cdef TypeSlots* _type = <TypeSlots*><PyObject*>Handle
_type.tp_vectorcall_offset = <char*>&_handle._vectorcall - <char*><PyObject*>_handle
_type.tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL

_type = <TypeSlots*><PyObject*>ExecutorCore
(<dict>_type.tp_dict)["execute"] = PyDescr_NewMethod(
    <PyTypeObject*><PyObject*>ExecutorCore, &_execute_def
)
PyType_Modified(<PyTypeObject*><PyObject*>ExecutorCore)
_handle = None
_probe = None
