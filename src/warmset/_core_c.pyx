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
from cpython.exc cimport PyErr_Occurred
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.math cimport INFINITY

import sys
from _collections import deque
from _functools import partial
from operator import itemgetter
from time import perf_counter
from types import MappingProxyType, ModuleType
from weakref import ref as weak_reference

from . import _fork, codes
from .codes import STATE_NAMES
from .errors import MethodNotFoundError, MethodRegistryError
from .family_keys import FamilyKey
from .resolver import check_method_name, check_name, raise_not_found

__all__ = [
    "BuildRecord",
    "Entry",
    "ExecutorCore",
    "FamilyCore",
    "Handle",
    "Injected",
    "Lease",
    "PlainBuilds",
    "RegistryCore",
    "Slot",
]


cdef extern from *:
    """
    #include <time.h>
    /* Exported by all versions, declared for others by some. */
    PyAPI_FUNC(int) _PyObject_GetMethod(PyObject *, PyObject *, PyObject **);
    #if defined(_WIN32)
      #include <windows.h>
      static inline double warmset_clock(int coarse) {
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
      static inline double warmset_clock(int coarse) {
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
    ctypedef struct Stripe "warmset_stripe":
        number stamp
        number hits
        number displaced
        number before
        void* last
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
    Hold* warmset_copy_holds(Table*, Py_ssize_t*) noexcept
    PyObject* warmset_void_hold(Table*, unsigned long) noexcept
    bint warmset_return_hold(Hold*) noexcept
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
        void* tp_getattro
        Py_ssize_t tp_dictoffset
        PyObject* tp_dict
    const int METH_FASTCALL
    const int METH_KEYWORDS
    const unsigned long Py_TPFLAGS_HAVE_VECTORCALL
    const size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    object PyVectorcall_Call(object, object, object)
    Py_ssize_t PyVectorcall_NARGS(size_t)
    PyObject* PyObject_Vectorcall(PyObject*, PyObject* const*, size_t, PyObject*)
    int _PyObject_GetMethod(PyObject*, PyObject*, PyObject**)
    void PyErr_GetExcInfo(PyObject**, PyObject**, PyObject**)
    PyObject* _PyType_Lookup(PyTypeObject*, object)
    PyObject* PyObject_GenericGetAttr(PyObject*, PyObject*)
    PyTypeObject PyType_Type
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
    CAUSES = 11
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
    MOST_PATHS = 1024  # of which plain builds remember what they consist of
    PLACES_FOR_A_SLOT = 2  # at least: half of the table is empty
    PLACES_TOGETHER = 4  # where a slot may stand: half a line of the processor's cache
    ROUNDS = 17  # look-ups until a slot may displace another one; a prime, so that all get a turn

if (CAUSES, STATES, COUNTERS) != (codes.CAUSES, codes.STATES, codes.COUNTERS):
    raise ImportError("the compiled core was built for other codes: build it again")

cdef dict MODULES = sys.modules

cdef int CACHED = codes.CACHED
cdef int WEAK = codes.WEAK
cdef int HELD = codes.HELD
cdef int WAITING = codes.WAITING
cdef int NOTHING_TO_CLOSE = codes.NOTHING_TO_CLOSE
cdef int PARENTS = codes.PARENTS
cdef int NO_CAUSE = codes.NO_CAUSE
cdef int IDLE = codes.IDLE
cdef int SIZE = codes.SIZE
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
    cdef public object plan  # of its arguments; None: not compiled yet

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
    cdef bint _ready
    cdef public bint validates  # whether an entry may be due to be validated
    cdef public bint by_policy  # whether an extension chooses victims, and not the ring
    cdef long long _hits
    cdef public long long misses
    cdef Py_ssize_t _watched
    cdef Addresses* _class_addresses  # of classes that are keys; a hint, and NULL before the first
    cdef list _class_slots  # those that stand there
    cdef public dict failed  # the failures that are remembered, by the keys of slots
    cdef public PlainBuilds plain_builds  # None: a capability takes part in builds

    def __cinit__(self, *args, **kwargs):
        self.max_size = 1
        self.failed = {}

    def __dealloc__(self):
        PyMem_Free(self._class_addresses)

    def __init__(
        self,
        *,
        cache_ttl_seconds=300.0,
        max_age_seconds=0.0,
        max_cache_size=100,
        enable_weakref=False,
        timer=None,
    ):
        if self._ready:
            raise RuntimeError("this registry was initialised already")
        self._ready = True
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
        return self._hits + <long long>warmset_hits(self._table)

    @hits.setter
    def hits(self, long long count):
        self._hits = count - <long long>warmset_hits(self._table)

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
            class_name = self.name_of(class_name)
        if type(method_name) is not str:
            method_name = check_method_name(method_name)
        if self._injected:
            injected = _find_injected(self, class_name, method_name)
            if injected is not None:
                return injected.method
        warm = _get(self, class_name)
        method = PyObject_GetAttr(<PyObject*>warm, <PyObject*>method_name)
        if method != NULL and PyCallable_Check(method):
            return _owned(method)
        return _not_found(warm, class_name, method_name, method)

    def has_method(self, class_name, method_name):
        """
        Tell whether a method can be expected, without building or importing anything.

        Args:
            class_name: A name, or a class that is registered itself.
            method_name: A method name.

        Returns:
            True for an injected method. False for a name that is unknown or whose build failed.
            For a warm instance, whether it has such a callable. For any other, what the class says
            if its module is imported already and no rule may build something else; else True, also
            for a property, which is not run.
            An attribute that only the constructor sets is known once the instance is warm.

        Thread-safe; O(1).
        """
        if type(class_name) is str and type(method_name) is str and not self.failed:
            if _is_warm_method(self, class_name, method_name):
                return True
        return self.expects_method(class_name, method_name)

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
            class_name = self.name_of(class_name)
        return Lease(self, class_name)

    def inject(self, str class_name, str method_name, method):
        """Let a method be found under two names before anything else."""
        self._injected.setdefault(class_name, {})[method_name] = Injected(method)

    def show_classes(self, list slots not None):
        """Let these slots be found by the classes that are their targets; a hint for look-ups."""
        cdef Addresses* before = self._class_addresses
        cdef Addresses* addresses = NULL
        cdef size_t size = 8, most = 64 * <size_t>len(slots)
        while size < 4 * <size_t>len(slots):
            size *= 2
        while slots:
            addresses = _new_addresses(size)
            if addresses == NULL:
                raise MemoryError
            # One that displaced another one would leave it to the slow path for good.
            if _show_all(addresses, slots) or size >= most:
                break
            PyMem_Free(addresses)
            size *= 2
        owned, self._class_slots = self._class_slots, slots  # the table borrows them
        warmset_store_pointer(&self._class_addresses, addresses)
        warmset_wait(self._table)
        PyMem_Free(before)
        del owned

    def drop_injected(self):
        """Forget all injected methods."""
        self._injected.clear()

    # -- operations on holds ---------------------------------------------------------------------

    def look_up(self, class_name not None, holder):
        """Look up, for a holder; return the instance, or None after counting a miss."""
        cdef PyObject* held = NULL
        cdef PyObject* found = _look_up(self, class_name, _now(self), &held)
        if found == NULL:
            return None
        instance = _owned(found)
        holder.entry = _owned(held)
        return instance

    def hold(self, Entry entry not None, holder=None):
        """Take a hold on an entry, for a holder; False if it is being closed, or was."""
        cdef bint usable
        _begin(self, entry.slot)
        usable = NEW < entry.state < WAITING or entry.state == NOTHING_TO_CLOSE
        if usable:
            warmset_add_holds(&entry.holds, 1)
        _unlock(self)
        if usable and holder is not None:
            holder.entry = entry
        return usable

    def release(self, Entry entry not None, now, *, bint share=False):
        """Release a hold that `construct`, `hold` or a build took; a use, unless `now` is None."""
        cdef bint used = now is not None
        _check_owner(self, entry.slot)
        _give_back(self, entry, now if used else 0.0, used, share)

    def give_back(self, holder, now, *, bint share=False):
        """Release the hold of a holder, whose `entry` becomes None; again, it does nothing."""
        cdef bint used = now is not None
        _lock(self)
        try:
            entry = holder.entry
            if entry is not None:
                holder.entry = None
        finally:
            _unlock(self)
        if entry is not None:
            _check_owner(self, (<Entry?>entry).slot)
            _give_back(self, <Entry>entry, now if used else 0.0, used, share)

    def drop(self, holder):
        """Release the hold of a holder that nobody has any more; what this allows is not done."""
        entry = holder.entry
        holder.entry = None
        if entry is not None:
            _check_owner(self, (<Entry?>entry).slot)
            _lock(self)
            _drop(self, <Entry>entry)
            _unlock(self)

    def drop_holds(self, unsigned long thread):
        """Drop the recorded holds of all threads but one: after a fork, these do not exist."""
        cdef PyObject* entry = <PyObject*>self
        while entry != NULL:
            _lock(self)
            entry = warmset_void_hold(self._table, thread)
            if entry != NULL:
                _drop(self, <Entry>entry)
            _unlock(self)

    def holds(self):
        """Return entry, thread and begin of each hold, the oldest first."""
        cdef Py_ssize_t i, count
        cdef Hold* copies = warmset_copy_holds(self._table, &count)
        cdef list found = []
        if copies == NULL:
            raise MemoryError
        try:
            for i in range(count):
                found.append((_owned(copies[i].entry), copies[i].thread, copies[i].since))
        finally:
            PyMem_Free(copies)
        found.sort(key=itemgetter(2))
        return found

    def watch(self, Py_ssize_t count):
        """Add so many to, or take them from, those who wait for a release or for capacity."""
        warmset_add_size(&self._watched, count)

    # -- what is seen of it ----------------------------------------------------------------------

    def counters(self):
        """Return the counters, of one moment."""
        # Copied before the first object is made for them.
        cdef (long long, long long, long long, long long, long long, double) totals
        cdef long long removals[CAUSES]
        cdef long long states[STATES]
        cdef long long counts[COUNTERS]
        _lock(self)
        totals = (
            self._hits + <long long>warmset_hits(self._table),
            warmset_load_count(&self.misses),
            self.evictions,
            self.builds,
            self.adopted,
            self.build_seconds,
        )
        removals[:] = self._removals
        states[:] = self._states
        counts[:] = self._counts
        _unlock(self)
        summary = totals
        return summary + (tuple(removals), tuple(states), tuple(counts))


# -- the paths of a look-up ----------------------------------------------------------------------

cdef inline object _get(RegistryCore core, object class_name):
    """A look-up without a lease."""
    cdef PyObject* instance
    if type(class_name) is not str:
        return _get_by_class(core, class_name)
    instance = _look_up(core, class_name, _now(core), NULL)
    return _build_and_share(core, class_name) if instance == NULL else _owned(instance)


cdef object _get_by_class(RegistryCore core, object key):
    """As `_get`, for a key that is no exact str: mostly a class."""
    cdef double now = _now(core)
    cdef Stripe* stripe = warmset_enter(core._table)
    cdef Addresses* addresses
    cdef PyObject* found
    cdef PyObject* instance = NULL
    if stripe != NULL:
        addresses = <Addresses*>warmset_load_pointer(&core._class_addresses)
        if addresses != NULL:
            found = _slot_of_class(addresses, <PyObject*>key)
            if found != NULL:
                instance = _read(core, stripe, <Slot>found, now, NULL)
        warmset_leave(stripe)
        if instance != NULL:
            return _owned(instance)
    if type(key) is not FamilyKey:
        key = core.name_of(key)
    return _get_named(core, key)


cdef bint _show_all(Addresses* addresses, list slots):
    """Show slots by their targets; False if one displaced another one."""
    cdef PyObject** place
    cdef Slot slot
    cdef bint complete = True
    for slot in slots:
        place = _place_to_fill(addresses, <PyObject*>slot._target)
        complete = complete and place[0] == NULL
        place[0] = <PyObject*>slot
    return complete


cdef inline PyObject* _slot_of_class(Addresses* addresses, PyObject* key) noexcept:
    """The slot whose target is this class and shown by it, borrowed; NULL if none is."""
    cdef PyObject** place = _place(addresses, key)
    cdef PyObject* found
    cdef size_t home = place - addresses.places, i
    for i in range(PLACES_TOGETHER):
        found = addresses.places[home ^ i]
        if found != NULL and <PyObject*>(<Slot>found)._target == key:
            return found
    return NULL


cdef object _get_named(RegistryCore core, object key):
    """As `_get`, for a name or the key of a family."""
    cdef PyObject* instance = _look_up(core, key, _now(core), NULL)
    return _build_and_share(core, key) if instance == NULL else _owned(instance)


cdef object _build_and_share(RegistryCore core, object class_name):
    """What follows a miss, where no lease is wanted."""
    # What a build returns is held, so that nobody closes it before its caller has it.
    instance, entry = _build(core, class_name)
    _give_back(core, entry, 0.0, False, True)
    return instance


@cython.final
cdef class Holder:
    """Has the hold on what was built or found, until C code takes it over."""

    cdef public object entry


cdef tuple _build(RegistryCore core, object class_name):
    """What follows a miss: the instance, and its entry, which is held."""
    cdef Holder holder
    cdef tuple built = None
    if core.plain_builds is not None:
        built = core.plain_builds.build(core, class_name)
    if built is not None:
        return built
    holder = Holder()
    try:
        instance = core.build(class_name, holder)
    except BaseException:
        # An interrupt after the hold was passed on; it is not passed on by a return value, since
        # one can arrive between a return and the next store.
        core.give_back(holder, None)
        raise
    return instance, holder.entry


cdef inline PyObject* _look_up(
    RegistryCore core, object class_name, double now, PyObject** held
) except? NULL:
    """
    A new reference to the instance of a name, which is an exact str; NULL after counting a miss.

    With `held`, a hold is taken, and `held` becomes a new reference to its entry. What is called
    between `warmset_enter` and `warmset_leave` is C that runs no Python code and waits for nothing.
    """
    cdef Stripe* stripe = warmset_enter(core._table)
    cdef PyObject* found
    cdef PyObject* instance = NULL
    if stripe != NULL:
        found = _slot_at_address(<Addresses*>warmset_load_pointer(&core._addresses), class_name)
        if found != NULL:
            instance = _read(core, stripe, <Slot>found, now, held)
        warmset_leave(stripe)
        if instance != NULL:
            return instance
    return _look_up_by_value(core, class_name, now, held)


cdef PyObject* _look_up_by_value(
    RegistryCore core, object class_name, double now, PyObject** held
) except? NULL:
    """As `_look_up`, where the slot does not stand in the address table, or is not simply warm."""
    cdef PyObject* found
    cdef Slot slot
    cdef Stripe* stripe
    cdef PyObject* instance = NULL
    if not FREE_THREADED:
        # Mostly a name that is equal to its key. With the interpreter lock no code can run from the
        # end of this look-up to the new reference, so the slot needs none.
        found = PyDict_GetItemWithError(core._slots, class_name)
        if (
            found != NULL
            and Py_TYPE(found) is <PyTypeObject*>Slot
            and (<Slot>found).table == core._table
            and <PyObject*>(<Slot>found).key != <PyObject*>class_name
        ):
            instance = _read(core, warmset_enter(core._table), <Slot>found, now, held)
            if instance != NULL:
                return instance
        elif found == NULL and PyErr_Occurred():
            _propagate()
    slot = _slot_named(core, class_name)
    stripe = warmset_own(core._table)
    if slot is None:
        if type(class_name) is str:
            check_name(class_name)
        warmset_add_number(&core.misses, 1)
        return NULL
    if stripe == NULL or (warmset_load_pointer(&slot.place) == NULL and _may_show(slot, stripe)):
        _lock(core)
        warmset_join(core._table)
        if slot._alive and <PyObject*>slot.key == <PyObject*>class_name:
            _show_slot(core, slot)
        _unlock(core)
    stripe = warmset_enter(core._table)
    if stripe != NULL:
        instance = _read(core, stripe, slot, now, held)
        warmset_leave(stripe)
    return instance if instance != NULL else _look_up_under_lock(core, slot, now, held)


cdef PyObject* _look_up_under_lock(
    RegistryCore core, Slot slot, double now, PyObject** held
) except? NULL:
    """As `_look_up`; an entry that is stale, or was collected, is removed."""
    cdef Entry entry
    cdef PyObject* found = NULL
    cdef bint removed = False
    if core.validates:
        core.check_due(slot, now)
    instance = None
    _lock(core)
    entry = slot._entry
    if entry is not None:
        if entry._weak:
            instance = entry._content()
            removed = instance is None and _detach(core, entry, COLLECTED, True)
        else:
            # It is fresh, where it was not read without the lock; or held or pinned, so that its
            # idle clock is stopped; or was used meanwhile.
            instance = entry._content
            removed = _expire(core, entry, now)
        if not removed:
            _use(core, entry, now)
            warmset_add_uses(&entry._uses, 1)
            core._hits += 1
            if held != NULL:
                warmset_add_holds(&entry.holds, 1)
                held[0] = <PyObject*>entry
                Py_INCREF(entry)
            else:
                warmset_store_byte(&entry._shared, True)
            found = <PyObject*>instance
            Py_INCREF(instance)
    if found == NULL:
        warmset_add_number(&core.misses, 1)
    _unlock(core)
    if removed:
        instance = None  # other references to what was removed are counted
        try:
            core.handle_removed([entry])
        except BaseException:
            core.left_over = True
            raise
    return found


cdef Slot _slot_named(RegistryCore core, object class_name):
    """The slot of a name, an exact str, or None; whatever somebody wrote into the dict."""
    cdef Slot slot = _item(<PyObject*>core._slots, <PyObject*>class_name)
    if slot is not None:
        _check_owner(core, slot)
    return slot


cdef bint _may_show(Slot slot, Stripe* stripe) noexcept:
    """
    Whether to look for a place in the address table for a slot that has none.

    Slots that want the same places displace one another now and then, not at each look-up: else a
    rotation over more of them than there are places would find none of them.
    """
    if not slot._sought:
        return True
    stripe.displaced += 1
    return stripe.displaced % ROUNDS == 0


cdef void _show_slot(RegistryCore core, Slot slot) noexcept:
    """Let a slot be found by the address of its name; the table grows with the number of slots."""
    cdef Addresses* before = core._addresses
    cdef Addresses* addresses
    cdef size_t size = before.mask + 1
    cdef size_t wanted = <size_t>len(core._slots) * PLACES_FOR_A_SLOT
    if size < ADDRESSES_AT_MOST and size < wanted:
        while size < ADDRESSES_AT_MOST and size < wanted:
            size *= 2
        addresses = _new_addresses(size)
        if addresses != NULL:  # else the smaller one goes on serving
            _move_slots(before, addresses)
            warmset_store_pointer(&core._addresses, addresses)
            warmset_wait(core._table)
            PyMem_Free(before)
    _show(core._addresses, slot, slot._sought)
    slot._sought = True


cdef inline PyObject* _read(
    RegistryCore core, Stripe* stripe, Slot slot, double now, PyObject** held
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
    elif not FREE_THREADED or not warmset_load_byte(&(<Entry>entry)._shared):
        warmset_store_byte(&(<Entry>entry)._shared, True)
    _note_use(core, stripe, <Entry>entry, now)
    if FREE_THREADED:
        warmset_store_number(&stripe.hits, stripe.hits + 1)
    else:
        core._hits += 1
        (<Entry>entry)._uses += 1
    # Last: where threads contend for its count, the caller drops it while this thread still has it.
    _incref(instance)
    return instance


cdef inline void _note_use(RegistryCore core, Stripe* stripe, Entry entry, double now) noexcept:
    """
    A thread used an entry at this time.

    Nothing is stored if it is the one that it used last, within the same reading of the clock, and
    the ring was not sorted since.
    """
    if not FREE_THREADED:
        entry.last_used = now
        entry.touched = True
        core._stamp += 1
        entry.stamp = core._stamp
        return
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


cdef int _release(RegistryCore core, Entry entry) except -1:
    """Release a hold; that is a use, now."""
    cdef double now
    cdef Stripe* stripe
    cdef bint cached = False
    if core._timer is None:
        now = warmset_clock(core._coarse)
    else:
        try:
            now = _now(core)
        except BaseException:
            _give_back(core, entry, 0.0, False, False)
            raise
    stripe = warmset_enter(core._table)
    if stripe != NULL:
        cached = _load_entry(entry.slot) == <PyObject*>entry
        if cached:
            _note_use(core, stripe, entry, now)
            warmset_add_holds(&entry.holds, -1)
        warmset_leave(stripe)
    if not cached:
        return _give_back(core, entry, now, True, False)
    if warmset_load_size(&core.cached) > core.max_size or warmset_load_size(&core._watched):
        return _after_release(core, None, None, True)
    return 0


cdef int _give_back(RegistryCore core, Entry entry, double now, bint used, bint share) except -1:
    """Take a hold off an entry, whatever its state, and do what that allows."""
    cdef bint ended = False, cached
    _lock(core)
    cached = entry.state == CACHED
    if share:
        warmset_store_byte(&entry._shared, True)
    if used and CACHED <= entry.state <= WEAK:
        _use(core, entry, now)
    if _holds_of(<PyObject*>entry):  # else nobody had one
        warmset_add_holds(&entry.holds, -1)
        ended = entry.state == HELD and _holds_of(<PyObject*>entry) == 0
    if ended:
        _set_state(core, entry, WAITING)
    _unlock(core)
    return _after_release(core, entry if ended else None, entry if share else None, cached)


cdef int _drop(RegistryCore core, Entry entry) except -1:
    """Take a hold off an entry; the caller has the lock."""
    if _holds_of(<PyObject*>entry):
        warmset_add_holds(&entry.holds, -1)
        if entry.state == HELD and _holds_of(<PyObject*>entry) == 0:
            _set_state(core, entry, WAITING)
    return 0


cdef int _after_release(RegistryCore core, Entry ended, Entry spare, bint cached) except -1:
    """Do what a released hold allows: close an entry, or evict down to the bound."""
    try:
        if ended is not None:
            core.close_released(ended)
        elif cached and warmset_load_size(&core.cached) > core.max_size:
            core.make_capacity(spare)
    except BaseException:
        core.left_over = True
        raise
    finally:
        if warmset_load_size(&core._watched):
            core.capacity_freed()
    return 0


# -- methods -------------------------------------------------------------------------------------

cdef int _propagate() except -1:
    """Raise the error that a C call has set; without memory the interpreter may fail to set one."""
    if PyErr_Occurred() == NULL:
        raise MemoryError
    return -1


cdef bint _is_warm_method(RegistryCore core, object class_name, object method_name) except -1:
    """Whether a warm instance has a method that is a function of its class, found without code."""
    cdef Slot slot = _slot_named(core, class_name)
    cdef Entry entry = None if slot is None else slot.entry
    cdef PyTypeObject* kind
    cdef PyObject* found
    if entry is None or entry._weak:
        return False
    instance = entry.content
    kind = Py_TYPE(<PyObject*>instance)
    if Py_TYPE(<PyObject*>kind) is not &PyType_Type or (
        (<TypeSlots*>kind).tp_getattro != <void*>PyObject_GenericGetAttr
    ):
        return False
    found = _PyType_Lookup(kind, method_name)
    if found == NULL or not PyFunction_Check(found):
        return False
    # The instance may have something else of that name.
    return (<TypeSlots*>kind).tp_dictoffset == 0 or callable(getattr(instance, method_name))


cdef object _not_found(object instance, object class_name, object method_name, PyObject* method):
    """Raise that a method is not callable or, where it is NULL, from the error of the look-up."""
    if method != NULL:
        return raise_not_found(instance, class_name, method_name, _owned(method))
    try:
        _propagate()
    except AttributeError as error:
        return raise_not_found(instance, class_name, method_name, None, error)


cdef Injected _find_injected(RegistryCore core, object class_name, object method_name):
    cdef dict methods = _item(<PyObject*>core._injected, <PyObject*>class_name)
    return None if methods is None else _item(<PyObject*>methods, <PyObject*>method_name)


include "_plain_c.pxi"
include "_calls_c.pxi"
