# cython: language_level=3, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic, freethreading_compatible=True
"""
The compiled core: slots, entries, recency ring, idle TTL, counters, leases, handles and `execute`.

It is the twin of `_core_py` and the modules below it, which are the reference for behaviour. It is
one extension of five files, each the twin of the pure module of its name: `_entry_c.pxi` (records),
`_ring_c.pxi` (recency), `_changes_c.pxi` (atomic operations), this one (look-ups and holds), and
`_calls_c.pxi` (leases, handles, `execute`). `_readers.h` has the state of threads.

    address table: from the address of a name to its slot; _slots, a dict, where that misses

      "Tagger" ---> Slot: target, options, limits
                      |
                      +--> Entry: instance, times, uses, holds, state
                             |
                            link ------ newer ---->  <---- older ------ link
                             :                                            :
        root --> oldest  <->  ...  <->  newest sorted  <->  mark  <->  touched  <->  ...  <-- root

The address table holds borrowed slots, each at the place that the address of its name determines.
The name of a slot is interned, and so is a name that is a constant in a caller's code: mostly they
are the same object, and the slot is found without hashing, comparing or a call. The table is only a
hint: what is found there is used only if its name is that very object, slots displace one another,
and a slot leaves the table when it dies or is dropped.

Why there is no lock with an interpreter lock
    With the interpreter lock held, only a call into Python can let another thread, a finaliser or a
    signal handler in. Each change is plain C from its first store to its last: no call into Python,
    no new container (the collector may run there before 3.12), no reference dropped. A removed
    entry goes to a list that was made before the change, and is dropped after it.

What a free-threaded interpreter changes
    There a mutex of the registry makes the changes atomic: each is between `_lock` and `_unlock`,
    where no Python code runs. It is no critical section, since that is given up where its thread
    waits for a lock of the interpreter, as for that of a dict, which would be amid a change.

    A hit takes no lock (`_readers.h`). It reads the entry of a slot, and notes its use in the entry
    and in the stripe of its thread. To remove an entry, it is taken out of its slot, and readers
    are waited for: from then on its times, holds and uses are final. The order of uses is exact for
    what one thread does, and across threads as exact as the clock.

        hit:      enter - table - slot - entry fresh? - stamp, touch, hold, instance - leave
        removal:  lock ( out of its slot - wait for readers - count ) unlock - close

Why a look-up runs no foreign code
    Names are exact `str`, so hashing and comparing them is C. An injected timer is foreign: it is
    read before anything else.
"""

cimport cython
from cpython.dict cimport PyDict_GetItemWithError
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.math cimport INFINITY

from operator import itemgetter
from types import BuiltinMethodType, MappingProxyType
from weakref import ref as weak_reference

from . import _fork, codes
from .codes import STATE_NAMES
from .errors import MethodNotFoundError, MethodRegistryError
from .resolver import check_name

__all__ = ["Entry", "ExecutorCore", "Handle", "Lease", "RegistryCore", "Slot"]


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
    const int CHUNK "WARMSET_CHUNK"
    ctypedef unsigned long long number "uint64_t"
    ctypedef struct Mutex "warmset_mutex":
        pass
    void warmset_mutex_lock(Mutex*) noexcept
    void warmset_mutex_unlock(Mutex*) noexcept
    void warmset_mutex_reset(Mutex*) noexcept
    void warmset_share_reference(PyObject*) noexcept
    bint warmset_is_alone(PyObject*) noexcept
    ctypedef struct Hold "warmset_hold":
        PyObject* entry
        unsigned long thread
        double since
    ctypedef struct Chunk "warmset_chunk":
        Chunk* next
        Hold* holds
    ctypedef struct Stripe "warmset_stripe":
        number stamp
        number hits
        number before
        void* last
        Chunk* chunks
        Py_ssize_t held
        int lock
    ctypedef struct Table "warmset_table":
        Stripe** stripes
        Py_ssize_t used
        Py_ssize_t owners
    int warmset_prepare_numbers() noexcept
    void warmset_keep_own_number() noexcept
    Table* warmset_new_table() noexcept
    void warmset_drop_table(Table*) noexcept
    Py_ssize_t warmset_table_bytes(Table*) noexcept
    void warmset_join(Table*) noexcept
    Stripe* warmset_own(Table*) noexcept
    Stripe* warmset_enter(Table*) noexcept
    void warmset_leave(Stripe*) noexcept
    void warmset_wait(Table*) noexcept
    number warmset_hits(Table*) noexcept
    number warmset_late_uses(Table*, void*, bint) noexcept
    Hold* warmset_take_hold(Table*, PyObject*, unsigned long, double) noexcept
    void warmset_return_hold(Hold*) noexcept
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
    long long warmset_load_count "warmset_load_number" (long long*) noexcept
    void warmset_add_number(long long*, long long) noexcept
    void warmset_add_uses "warmset_add_number" (unsigned long long*, long long) noexcept
    void warmset_add_holds(unsigned int*, int) noexcept
    unsigned int warmset_load_holds(unsigned int*) noexcept
    Py_ssize_t warmset_load_size(Py_ssize_t*) noexcept
    void warmset_add_size(Py_ssize_t*, Py_ssize_t) noexcept
    bint warmset_swap_state(int*, int, int) noexcept
    object _owned "warmset_owned"(PyObject*)
    object _item "warmset_item"(PyObject*, PyObject*)
    PyObject* warmset_slot_named(PyObject*, PyObject*) noexcept
    double warmset_load_time(double*) noexcept
    void warmset_store_time(double*, double) noexcept
    void warmset_fence_after_load() noexcept

cdef extern from "Python.h":
    ctypedef struct PyMethodDef:
        const char* ml_name
        void* ml_meth
        int ml_flags
        const char* ml_doc
    ctypedef struct FunctionSlots "PyFunctionObject":
        PyObject* func_code
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
    const Py_ssize_t PY_SSIZE_T_MAX
    int PyFunction_Check(PyObject*)
    object PyMethod_New(PyObject*, PyObject*)
    void PyUnicode_InternInPlace(PyObject**)
    PyObject* PyObject_GetAttr(PyObject*, PyObject*)
    int PyCallable_Check(PyObject*)
    PyObject* PyErr_NoMemory() noexcept
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


cdef enum:  # sizes of arrays, checked below
    CAUSES = 10
    STATES = 9
    COUNTERS = 3

cdef enum:  # states of a lease
    FREE = 0
    ENTERING = 1
    ENTERED = 2

cdef enum:
    STACK = 8  # arguments that a call passes on without an allocation
    NEW = -1  # the state of an entry whose constructor has not returned
    ADDRESSES_AT_FIRST = 64  # places in the address table; it grows with the number of slots
    ADDRESSES_AT_MOST = 65536
    PLACES_FOR_A_SLOT = 2  # at least: half of the table is empty

if (CAUSES, STATES, COUNTERS) != (codes.CAUSES, codes.STATES, codes.COUNTERS):
    raise ImportError("the compiled core was built for other codes: build it again")

cdef int CACHED = codes.CACHED
cdef int WEAK = codes.WEAK
cdef int HELD = codes.HELD
cdef int WAITING = codes.WAITING
cdef int NOTHING_TO_CLOSE = codes.NOTHING_TO_CLOSE
cdef int PARENTS = codes.PARENTS
cdef int NO_CAUSE = codes.NO_CAUSE
cdef int IDLE = codes.IDLE
cdef int MEMORY = codes.MEMORY
cdef int AGED = codes.AGED
cdef int RECYCLED = codes.RECYCLED
cdef int COLLECTED = codes.COLLECTED
cdef int DISCARDED = codes.DISCARDED
cdef int PUBLISHED = codes.PUBLISHED
cdef int STALE = codes.STALE
cdef int FULL = codes.FULL

cdef size_t MULTIPLIER = <size_t>0x9E3779B97F4A7C15

# The coarse clock is taken where its tick (1 to 4 ms) is at most this part of the TTL.
cdef double TICKS_IN_TTL = 250.0


if warmset_prepare_numbers() < 0:
    raise MemoryError("the system has no more thread-specific keys")


include "_entry_c.pxi"
include "_ring_c.pxi"
include "_changes_c.pxi"


# -- look-ups and holds --------------------------------------------------------------------------

@cython.final
cdef class Injected:
    """An injected method, and the route that `execute` compiled for it."""

    cdef readonly object method
    cdef object plan

    def __cinit__(self, method):
        self.method = method


@cython.no_gc_clear  # the collector breaks cycles at the dict, so no method ever meets a None here
cdef class RegistryCore(Changes):
    """
    The part of a registry that a hit runs through, and the operations that change its cache.

    Args:
        cache_ttl_seconds: Idle seconds after which an instance is evicted; 0 disables it.
        max_age_seconds: Seconds since its build after which an instance is evicted; 0 disables it.
        max_cache_size: How many instances are cached at most.
        enable_weakref: Keep instances by weak reference only.
        timer: Returns monotonic seconds; None takes the clock of the system.

    Single calls are thread-safe. A hit costs one probe for its slot and a few stores.
    """

    cdef public Py_ssize_t max_size
    cdef public bint by_policy  # whether an extension chooses victims, and not the ring
    cdef long long _hits
    cdef public long long misses
    cdef Py_ssize_t _watched

    def __cinit__(self, *args, **kwargs):
        self.max_size = 1

    def __init__(
        self,
        *,
        cache_ttl_seconds=300.0,
        max_age_seconds=0.0,
        max_cache_size=100,
        enable_weakref=False,
        timer=None,
    ):
        self._idle_limit = cache_ttl_seconds if cache_ttl_seconds > 0.0 else INFINITY
        self._age_limit = max_age_seconds if max_age_seconds > 0.0 else INFINITY
        self._one_limit = self._age_limit == INFINITY
        self.max_size = max_cache_size
        self.weak_mode = enable_weakref
        self._timer = timer
        _fork.watch(self)
        self._coarse = True
        _choose_clock(self, self._idle_limit, self._age_limit)

    def reset_after_fork(self):
        """Reset what belongs to threads that do not exist in the child."""
        Changes.reset_after_fork(self)
        self._watched = 0

    def now(self):
        """Return the registry's clock, in seconds."""
        return _now(self)

    @property
    def tick(self):
        """Seconds by which the clock may lag; 0.0 where it is precise or injected."""
        return warmset_tick() if self._coarse and self._timer is None else 0.0

    @property
    def hits(self):
        return self._hits + _late_hits(self)

    @hits.setter
    def hits(self, long long count):
        self._hits = count - _late_hits(self)

    @property
    def watched(self):
        """How many wait for a release, or for capacity."""
        return self._watched

    # -- look-up ---------------------------------------------------------------------------------

    def get_instance(self, class_name):
        """
        Return the instance of a class, building it if it is not warm.

        Args:
            class_name: A registered name.

        Returns:
            The instance; the same one while it stays warm.

        Raises:
            MethodRegistryError: The subclass tells the stage: unknown name, path, import,
                attribute, class, build, cycle, closed.

        Thread-safe; O(1) on a hit. A miss runs the import and the constructor, and waits if
        another thread is building the same class.
        """
        return _get(self, class_name)

    def get_method(self, class_name, method_name):
        """
        Return a bound method of a class's instance, or the callable injected under the two names.

        Args:
            class_name: A registered name, or one that a method was injected for.
            method_name: The attribute of the instance.

        Returns:
            The callable. It keeps its instance alive, but holds no lease on it.

        Raises:
            MethodNotFoundError: The instance has no such callable.
            MethodRegistryError: As `get_instance`.

        Thread-safe; O(1) on a hit.
        """
        cdef PyObject* method
        if type(class_name) is not str:
            class_name = check_name(class_name)
        if self._injected:
            injected = _find_injected(self, check_name(class_name), method_name)
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
            A context manager that returns the instance. While it is held, the instance is not
            evicted, and its idle clock is stopped; the clock starts again at release.

        Raises:
            MethodRegistryError: On entry, as `get_instance`.

        Thread-safe; O(1) on a hit.
        """
        if type(class_name) is not str or not PyUnicode_GET_LENGTH(<PyObject*>class_name):
            class_name = check_name(class_name)
        return Lease(self, class_name)

    def bind(self, class_name, method_name):
        """
        Return a handle: a callable that survives evictions, and holds the instance while it runs.

        Args:
            class_name: A registered name, or one that a method was injected for.
            method_name: The method that each call runs.

        Returns:
            The handle. Nothing is built until it is called.

        Raises:
            UnknownClassError: The name is not registered, and no such method was injected.

        Thread-safe; O(1).
        """
        class_name, method_name = check_name(class_name), check_name(method_name)
        if class_name not in self._slots and _find_injected(self, class_name, method_name) is None:
            self.refuse(class_name)
        return Handle(self, class_name, method_name)

    def inject_method(self, class_name, method_name, method):
        """
        Inject a method; it takes precedence over the class's own, and needs no class behind it.

        Args:
            class_name: Any name, registered or not.
            method_name: The name to find it by.
            method: The callable.

        Raises:
            TypeError: A name is not a string, or the method is not callable.

        Thread-safe; O(1).
        """
        class_name, method_name = check_name(class_name), check_name(method_name)
        if not callable(method):
            raise TypeError(
                f"method injected as {class_name}.{method_name} must be callable, got {method!r}"
            )
        injected = Injected(method)
        self._injected.setdefault(class_name, {})[method_name] = injected
        slot = self._slots.get(class_name)
        if slot is not None:
            (<Slot>slot).injected = True

    def find_injected(self, class_name, method_name):
        """Return what was injected under two names, if anything was."""
        return _find_injected(self, class_name, method_name)

    def drop_injected(self):
        """Forget all injected methods."""
        self._injected.clear()

    # -- what the registry overrides -------------------------------------------------------------

    def build(self, class_name):
        """Build after a miss; the instance, and its entry, on which the caller has a hold."""
        return self.refuse(class_name)

    def refuse(self, class_name):
        """Raise the error for a name that cannot be looked up."""
        raise MethodRegistryError(f"no class {class_name!r}", class_name=class_name)

    def handle_removed(self, entries):
        """Report removed entries, and close those that are not held. No lock is held here."""

    def close_released(self, entry):
        """Close an entry outside the cache whose last hold has ended. No lock is held here."""

    def make_capacity(self, spare=None):
        """Evict down to the bound, sparing one entry. No lock is held here."""

    def capacity_freed(self):
        """Report that a hold was released while somebody waits for that. No lock is held here."""

    def hold_while_running(self, Lease lease, result):
        """Keep a lease until the generator or coroutine that a method returned has ended."""
        lease.__exit__()
        return result

    # -- operations on holds ---------------------------------------------------------------------

    def hold(self, Entry entry not None):
        """
        Take a hold on an entry.

        Args:
            entry: An entry.

        Returns:
            False if it is being closed, or was: then it must not be used any more.
        """
        cdef bint usable
        _lock(self)
        usable = entry._state < WAITING or entry._state == NOTHING_TO_CLOSE
        if usable:
            warmset_add_holds(&entry.holds, 1)
        _unlock(self)
        return usable

    def release(self, Entry entry not None, now, *, bint share=False):
        """
        Release a hold that `construct`, `hold` or a build took.

        Args:
            entry: The entry.
            now: The registry's clock, where the release counts as a use; None where it does not.
            share: Whether a caller keeps the instance without a lease.
        """
        cdef bint used = now is not None
        _give_back(self, entry, now if used else 0.0, used, share)

    def holds(self):
        """Return entry, thread and begin of each hold, the oldest first."""
        cdef list found = []
        cdef Py_ssize_t i
        for i in range(warmset_load_size(&self._table.used)):
            _holds_of_stripe(<Stripe*>warmset_load_pointer(&self._table.stripes[i]), found)
        found.sort(key=itemgetter(2))
        return found

    def watch(self, Py_ssize_t count):
        """Add so many to, or take them from, those who wait for a release or for capacity."""
        warmset_add_size(&self._watched, count)

    # -- what is seen of it ----------------------------------------------------------------------

    def count_miss(self):
        """Count a look-up that found no slot."""
        warmset_add_number(&self.misses, 1)

    def counters(self):
        """
        Return the counters, of one moment.

        Returns:
            Hits, misses, evictions, builds, adopted, build seconds, removals by cause, entries by
            state, and the counters that `codes` names.
        """
        # Read before the first object is made for them.
        cdef long long hits, misses, evictions, builds, adopted
        cdef long long removals[CAUSES]
        cdef long long states[STATES]
        cdef long long counts[COUNTERS]
        cdef double build_seconds
        cdef int i
        _lock(self)
        hits = self._hits + _late_hits(self)
        misses = warmset_load_count(&self.misses)
        evictions = self.evictions
        builds = self.builds
        adopted = self.adopted
        build_seconds = self.build_seconds
        for i in range(CAUSES):
            removals[i] = self._removals[i]
        for i in range(STATES):
            states[i] = self._states[i]
        for i in range(COUNTERS):
            counts[i] = warmset_load_count(&self._counts[i])
        _unlock(self)
        return (
            hits,
            misses,
            evictions,
            builds,
            adopted,
            build_seconds,
            tuple([removals[i] for i in range(CAUSES)]),
            tuple([states[i] for i in range(STATES)]),
            tuple([counts[i] for i in range(COUNTERS)]),
        )


# -- the paths of a look-up ----------------------------------------------------------------------

cdef inline number _late_hits(RegistryCore core) noexcept:
    """Hits that are counted in the stripes of their threads."""
    return warmset_hits(core._table) if FREE_THREADED else 0


cdef inline PyObject* _find(RegistryCore core, object class_name) except? NULL:
    """The slot of a name, borrowed; NULL after counting a miss. The name is an exact str."""
    cdef PyObject* found = _slot_at_address(core._addresses, class_name)
    if found != NULL:
        return found
    return _find_by_value(core, class_name)


cdef PyObject* _find_by_value(RegistryCore core, object class_name) except? NULL:
    cdef PyObject* found = PyDict_GetItemWithError(core._slots, class_name)
    if found == NULL:
        check_name(class_name)
        core.misses += 1
    elif <PyObject*>(<Slot>found).name == <PyObject*>class_name:
        _show_slot(core, <Slot>found)
    return found


cdef void _show_slot(RegistryCore core, Slot slot) noexcept:
    """Let a slot be found by the address of its name; the table grows with the number of slots."""
    cdef Addresses* addresses
    cdef size_t size = core._addresses.mask + 1
    cdef size_t wanted = <size_t>len(core._slots) * PLACES_FOR_A_SLOT
    if size < ADDRESSES_AT_MOST and size < wanted:
        while size < ADDRESSES_AT_MOST and size < wanted:
            size *= 2
        addresses = _new_addresses(size)
        if addresses != NULL:  # else the smaller one goes on serving
            _empty_addresses(core._addresses)
            if FREE_THREADED:
                addresses = <Addresses*>warmset_exchange_pointer(&core._addresses, addresses)
                warmset_wait(core._table)
                PyMem_Free(addresses)
            else:
                PyMem_Free(core._addresses)
                core._addresses = addresses
    _show(core._addresses, slot)


cdef inline PyObject* _warm(
    RegistryCore core, Slot slot, double now, PyObject** held, bint count
) except? NULL:
    """
    A new reference to the instance of a slot; NULL after counting a miss, if it is not warm.

    With `held`, a hold is taken, and `held` becomes a new reference to its entry.
    """
    cdef PyObject* entry
    cdef PyObject* instance
    if FREE_THREADED:
        return _warm_without_lock(core, slot, now, held, count)
    entry = <PyObject*>slot._entry
    if (
        _is_entry(entry)
        and now - (<Entry>entry).last_used <= slot.idle_limit
        and now <= (<Entry>entry).deadline
    ):
        instance = <PyObject*>(<Entry>entry)._content
        _incref(instance)
        (<Entry>entry).last_used = now
        (<Entry>entry)._uses += count
        (<Entry>entry).touched = True
        core._stamp += 1
        (<Entry>entry).stamp = core._stamp
        core._hits += count
        if held != NULL:
            (<Entry>entry).holds += 1
            _incref(entry)
            held[0] = entry
        else:
            (<Entry>entry)._shared = True
        return instance
    return _warm_or_removed(core, slot, now, held, count)


cdef PyObject* _warm_or_removed(
    RegistryCore core, Slot slot, double now, PyObject** held, bint count
) except? NULL:
    """What a look-up does with a slot whose entry is not simply warm."""
    cdef Slot kept = slot  # the caller's is borrowed, and foreign code may run from here on
    cdef PyObject* instance
    cdef list removed = []
    _lock(core)
    try:
        instance = _warm_or_detached(core, kept, now, held, count, removed)
    finally:
        _unlock(core)
    if removed:
        core.handle_removed(removed)
    return instance


cdef PyObject* _warm_or_detached(
    RegistryCore core, Slot slot, double now, PyObject** held, bint count, list removed
) except? NULL:
    """As `_warm`, under the lock; what is stale, or was collected, goes to `removed`."""
    cdef Entry entry = slot._entry
    if entry is not None:
        if entry._weak:
            instance = entry._content()
            if instance is None:
                _detach(core, entry, COLLECTED, removed, True)
        else:
            _expire(core, entry, now, removed)
            # It is fresh, where it was not read without the lock; or held or pinned, so that its
            # idle clock is stopped; or was used meanwhile.
            instance = entry._content
        if slot._entry is entry:
            _use(core, entry, now)
            warmset_add_uses(&entry._uses, count)
            core._hits += count
            if held != NULL:
                warmset_add_holds(&entry.holds, 1)
                Py_INCREF(entry)
                held[0] = <PyObject*>entry
            else:
                warmset_store_byte(&entry._shared, True)
            Py_INCREF(instance)
            return <PyObject*>instance
    warmset_add_number(&core.misses, count)
    return NULL


cdef inline object _get(RegistryCore core, object class_name):
    """A look-up without a lease."""
    cdef double now
    cdef PyObject* found
    cdef PyObject* instance
    if type(class_name) is not str:
        class_name = check_name(class_name)
    now = _now(core)
    if FREE_THREADED:
        instance = _look_up_without_lock(core, class_name, now, NULL)
        if instance != NULL:
            return _owned(instance)
        return _build_and_share(core, class_name)
    found = _find(core, class_name)
    if found != NULL:
        instance = _warm(core, <Slot>found, now, NULL, True)
        if instance != NULL:
            return _owned(instance)
    return _build_and_share(core, class_name)


cdef inline PyObject* _get_held(
    RegistryCore core, object class_name, double now, PyObject** held
) except? NULL:
    """A look-up with a hold; NULL after counting a miss."""
    cdef PyObject* found
    if FREE_THREADED:
        return _look_up_without_lock(core, class_name, now, held)
    found = _find(core, class_name)
    if found == NULL:
        return NULL
    return _warm(core, <Slot>found, now, held, True)


cdef object _build_and_share(RegistryCore core, object class_name):
    """What follows a miss, where no lease is wanted."""
    cdef Entry entry
    # What a build returns is held, so that nobody closes it before its caller has it.
    instance, entry = core.build(class_name)
    _give_back(core, entry, 0.0, False, True)
    return instance


# -- look-ups without a lock ---------------------------------------------------------------------
# For free-threaded interpreters. What is called between `warmset_enter` and `warmset_leave` is C
# that runs no Python code and waits for nothing.

cdef inline PyObject* _look_up_without_lock(
    RegistryCore core, object class_name, double now, PyObject** held
) except? NULL:
    """As `_get_held`; without `held` no hold is taken."""
    cdef Stripe* stripe = warmset_enter(core._table)
    cdef PyObject* found
    cdef PyObject* instance = NULL
    if stripe != NULL:
        found = _slot_at_address(<Addresses*>warmset_load_pointer(&core._addresses), class_name)
        if found != NULL:
            instance = _read(core, stripe, <Slot>found, now, held, True)
        warmset_leave(stripe)
        if instance != NULL:
            return instance
    return _look_up_by_value(core, class_name, now, held)


cdef PyObject* _look_up_by_value(
    RegistryCore core, object class_name, double now, PyObject** held
) except? NULL:
    cdef Slot slot
    cdef Stripe* stripe
    cdef PyObject* found = warmset_slot_named(<PyObject*>core._slots, <PyObject*>class_name)
    if found == NULL:
        check_name(class_name)
        warmset_add_number(&core.misses, 1)
        return NULL
    slot = _owned(found)
    stripe = warmset_own(core._table)
    # Slots that want the same place displace one another now and then, not at each look-up.
    if stripe == NULL or (
        warmset_load_pointer(&slot.place) == NULL
        and <PyObject*>slot.name == <PyObject*>class_name
        and warmset_load_number(&stripe.hits) % 16 == 0
    ):
        _lock(core)
        warmset_join(core._table)
        if slot._alive and <PyObject*>slot.name == <PyObject*>class_name:
            _show_slot(core, slot)
        _unlock(core)
    return _warm_without_lock(core, slot, now, held, True)


cdef PyObject* _warm_without_lock(
    RegistryCore core, Slot slot, double now, PyObject** held, bint count
) except? NULL:
    """As `_warm`; the slot is not borrowed."""
    cdef Stripe* stripe = warmset_enter(core._table)
    cdef PyObject* instance
    if stripe != NULL:
        instance = _read(core, stripe, slot, now, held, count)
        warmset_leave(stripe)
        if instance != NULL:
            return instance
    return _warm_or_removed(core, slot, now, held, count)


cdef inline PyObject* _read(
    RegistryCore core, Stripe* stripe, Slot slot, double now, PyObject** held, bint count
) noexcept:
    """A new reference to the instance of a slot if it is fresh, else NULL."""
    cdef PyObject* instance
    cdef PyObject* entry = _load_entry(slot)
    if not (
        _is_entry(entry)
        and now - _used_at(entry) <= slot.idle_limit
        and now <= warmset_load_time(&(<Entry>entry).deadline)
    ):
        return NULL
    instance = <PyObject*>(<Entry>entry)._content
    if held != NULL:
        warmset_add_holds(&(<Entry>entry).holds, 1)
        _incref(entry)
        held[0] = entry
    elif not warmset_load_byte(&(<Entry>entry)._shared):
        warmset_store_byte(&(<Entry>entry)._shared, True)
    _note_use(core, stripe, <Entry>entry, now)
    if count:
        warmset_store_number(&stripe.hits, stripe.hits + 1)
    # Last: where threads contend for its count, the caller drops it while this thread still has it.
    _incref(instance)
    return instance


cdef inline void _note_use(RegistryCore core, Stripe* stripe, Entry entry, double now) noexcept:
    """
    A thread used an entry at this time.

    Nothing is stored if it is the one that it used last, within the same reading of the clock, and
    the ring was not sorted since.
    """
    if warmset_load_pointer(&stripe.last) == <PyObject*>entry:
        if _used_at(<PyObject*>entry) == now and stripe.stamp > warmset_load_number(&core._stamp):
            return
        _stamp_use(core, stripe, entry, now)
        warmset_fence()
    else:
        _stamp_use(core, stripe, entry, now)
        _turn_to(stripe, entry)
    # The stamp was stored before, by the fence or the exchange: a sort clears this first, and reads
    # the stamp then.
    if not warmset_load_byte(&entry.touched):
        warmset_store_byte(&entry.touched, True)


cdef inline void _stamp_use(RegistryCore core, Stripe* stripe, Entry entry, double now) noexcept:
    """
    Note where in the order of all uses this one stands.

    Stamps are nanoseconds of the system's clock; but each is above all that its thread gave and all
    in the sorted ring, so that they order what one thread does between two ticks of the clock.
    """
    cdef number stamp = _nanoseconds(core, now)
    stamp = max(stamp, stripe.stamp + 1, warmset_load_number(&core._stamp) + 1)
    stripe.stamp = stamp
    warmset_store_time(&entry.last_used, now)
    warmset_store_number(&entry.stamp, stamp)


cdef inline void _turn_to(Stripe* stripe, Entry entry) noexcept:
    """Add the uses of a thread's last entry to that entry, and turn to another one."""
    cdef PyObject* last = <PyObject*>warmset_exchange_pointer(&stripe.last, <PyObject*>entry)
    if last != NULL:  # else it was removed, and took these uses over
        warmset_add_uses(&(<Entry>last)._uses, <long long>(stripe.hits - stripe.before))
    warmset_store_number(&stripe.before, stripe.hits)


# -- holds ---------------------------------------------------------------------------------------

cdef inline Hold* _record(RegistryCore core, Entry entry, double since) except NULL:
    """Record who holds an entry, and since when; the entry is borrowed from the holder."""
    cdef Hold* hold = warmset_take_hold(
        core._table, <PyObject*>entry, PyThread_get_thread_ident(), since
    )
    if hold == NULL:
        raise MemoryError
    return hold


cdef int _holds_of_stripe(Stripe* stripe, list found) except -1:
    """Append entry, thread and begin of each hold that is recorded in a stripe."""
    cdef Chunk* chunk
    cdef Hold* hold
    cdef Hold* facts
    cdef list entries
    cdef Py_ssize_t capacity, taken = 0, i
    if stripe == NULL:
        return 0
    # All objects are made outside of the loop over the records: making one may let somebody in.
    capacity = stripe.held
    entries = [None] * capacity
    facts = <Hold*>PyMem_Malloc((capacity + 1) * sizeof(Hold))
    if facts == NULL:
        raise MemoryError
    warmset_lock(&stripe.lock)
    chunk = stripe.chunks
    while chunk != NULL:
        for i in range(CHUNK):
            hold = &chunk.holds[i]
            if hold.entry != NULL and taken < capacity:
                facts[taken] = hold[0]
                entries[taken] = <object>hold.entry  # its holder has it until the record is free
                taken += 1
        chunk = chunk.next
    warmset_unlock(&stripe.lock)
    try:
        for i in range(taken):
            found.append((entries[i], facts[i].thread, facts[i].since))
    finally:
        PyMem_Free(facts)
    return 0


cdef int _release(RegistryCore core, Entry entry) except -1:
    """Release a hold; that is a use, now."""
    cdef double now
    if core._timer is None:
        return _give_back(core, entry, warmset_clock(core._coarse), True, False)
    try:
        now = _now(core)
    except BaseException:
        _give_back(core, entry, 0.0, False, False)
        raise
    return _give_back(core, entry, now, True, False)


cdef inline int _give_back(
    RegistryCore core, Entry entry, double now, bint used, bint share
) except -1:
    """Take a hold off an entry, and do what that allows; what is shared is spared."""
    if FREE_THREADED:
        if _give_back_without_lock(core, entry, now, used, share):
            return 0
    elif entry._state == CACHED:
        entry.holds -= 1
        if share:
            entry._shared = True
        if used:
            entry.last_used = now
            entry.touched = True
            core._stamp += 1
            entry.stamp = core._stamp
        if core.cached > core.max_size:
            core.make_capacity(entry if share else None)
        if core._watched:
            core.capacity_freed()
        return 0
    return _give_back_removed(core, entry, now, used, share)


cdef int _give_back_without_lock(
    RegistryCore core, Entry entry, double now, bint used, bint share
) except -1:
    """Whether the hold was on a cached entry, and was released without the lock."""
    cdef Stripe* stripe
    cdef bint cached
    if not used or share:
        return False
    stripe = warmset_enter(core._table)
    if stripe == NULL:
        return False
    cached = _load_entry(entry.slot) == <PyObject*>entry
    if cached:
        _note_use(core, stripe, entry, now)
        warmset_add_holds(&entry.holds, -1)
    warmset_leave(stripe)
    if cached:
        _after_release(core, None, None, True)
    return cached


cdef int _give_back_removed(
    RegistryCore core, Entry entry, double now, bint used, bint share
) except -1:
    """As `_give_back`, for an entry in any state, under the lock."""
    cdef bint ended, cached
    _lock(core)
    cached = entry._state == CACHED
    if share:
        warmset_store_byte(&entry._shared, True)
    if used and (entry._state == CACHED or entry._state == WEAK):
        _use(core, entry, now)
    warmset_add_holds(&entry.holds, -1)
    ended = entry._state == HELD and _holds_of(<PyObject*>entry) == 0
    if ended:
        entry._state = WAITING
        core._states[HELD] -= 1
        core._states[WAITING] += 1
    _unlock(core)
    return _after_release(
        core, entry if ended else None, entry if share else None, cached
    )


cdef int _after_release(RegistryCore core, Entry ended, Entry spare, bint cached) except -1:
    """Do what a released hold allows: close an entry, or evict down to the bound."""
    try:
        if ended is not None:
            core.close_released(ended)
        elif cached and warmset_load_size(&core.cached) > core.max_size:
            core.make_capacity(spare)
    finally:
        if warmset_load_size(&core._watched):
            core.capacity_freed()
    return 0


# -- methods -------------------------------------------------------------------------------------

cdef int _propagate() except -1:
    """Raise the error that a C call has set."""
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


include "_calls_c.pxi"
