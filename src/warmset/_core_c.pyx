# cython: language_level=3, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
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
    leaves a slot is appended to a list that was made before the change, and dropped after it. For a
    free-threaded interpreter this module is not built: the pure core runs there.

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

from types import BuiltinMethodType
from weakref import ref as weak_reference

from . import _fork
from .errors import MethodNotFoundError, MethodRegistryError
from .resolver import check_name

__all__ = ["ExecutorCore", "Handle", "Lease", "RegistryCore", "Slot"]


cdef extern from *:
    """
    #include <time.h>
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


# -- slots and the ring --------------------------------------------------------------------------

cdef struct Link:
    Link* newer
    Link* older


cdef struct Hold:  # on the C stack of a running call, or in a lease
    Hold* newer
    Hold* older
    PyObject* slot
    unsigned long thread
    double since


@cython.final
cdef class Slot:
    """
    The record of one class name; instances move in and out of it.

    `epoch` names what the slot holds: a lease or a build that remembers it can tell whether this
    is still there. Each departure gives the slot an epoch that it never had; an instance that is
    revived brings its own back. `moves` counts both.
    """

    cdef readonly str name
    cdef readonly object path
    cdef readonly object instance
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
    cdef readonly list leaving  # taken out while held; closed at their last release
    cdef unsigned int serial  # of the build: which came before which
    cdef readonly unsigned int epoch
    cdef unsigned int moves
    cdef readonly unsigned int holds
    cdef readonly unsigned long long uses
    cdef readonly unsigned char kind
    cdef unsigned char _alive  # whether it is the slot of its name
    cdef unsigned char shared  # whether it was handed out without a lease
    cdef unsigned char _pinned

    def __cinit__(self, str name, path):
        self.name = name
        self.path = path
        self.idle_limit = self.age_limit = INFINITY
        self.bytes = -1

    @property
    def alive(self):
        return bool(self._alive)

    @property
    def pinned(self):
        return bool(self._pinned)

    def __dealloc__(self):
        _unlink(&self.link)
        _hide(self)

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


cdef inline PyObject* _slot_at(Link* link) noexcept:
    return <PyObject*>(<char*>link - LINK_OFFSET)


cdef inline void _hide(Slot slot) noexcept:
    """Take a slot out of the front."""
    if slot.place != NULL:
        slot.place[0] = NULL
        slot.place = NULL


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
    cdef PyObject** _front
    cdef size_t _front_mask
    cdef Hold _holds  # the root of the ring of all holds
    cdef Py_ssize_t _layout
    cdef unsigned int _generation
    cdef readonly Py_ssize_t _cached
    cdef readonly Py_ssize_t _weak
    cdef readonly long long _bytes  # of the cached, as far as they are known
    cdef public bint _by_policy  # whether `_choose_room` says who leaves, and not the ring
    cdef public long long _hits
    cdef public long long _misses
    cdef public long long _evictions
    cdef public long long _builds
    cdef double _build_seconds
    cdef long long _removals[CAUSES]
    cdef long long _tallies[TALLIES]
    cdef readonly Py_ssize_t _registered  # slots with a path
    cdef bint _sealed
    cdef public Py_ssize_t _blocked  # builds that wait for room
    cdef public object _queue  # of departures to tell of, if any

    def __cinit__(self, *args, **kwargs):
        self._slots = {}
        self._injected = {}
        self._root.newer = self._root.older = &self._root
        self._holds.newer = self._holds.older = &self._holds
        self._max_size = 1
        self._front = <PyObject**>PyMem_Calloc(FRONT_AT_FIRST, sizeof(PyObject*))
        if self._front == NULL:
            raise MemoryError
        self._front_mask = FRONT_AT_FIRST - 1

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
        _drop_front(self)

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
        self._layout += 1

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
        if self._one_limit:
            while True:
                found = _oldest_free(self, None)
                if found == NULL or now - (<Slot>found).last_used <= self._idle_limit:
                    break
                slot = <Slot>found
                _detach(self, slot, slot.epoch, IDLE, departed)
        else:
            for slot in _cached_slots(self, True):
                _expire(self, slot, now, departed)
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
        """Bytes of the registry itself and of the front, which it alone owns."""
        return object.__sizeof__(self) + (self._front_mask + 1) * sizeof(PyObject*)

    # -- what the registry calls -----------------------------------------------------------------

    def _is_injected(self, class_name, method_name):
        return _find_injected(self, class_name, method_name) is not None

    def _drop_injected(self):
        self._injected.clear()
        self._layout += 1

    def _now(self):
        return _now(self)

    @property
    def _tick(self):
        """Seconds by which the clock may lag; 0.0 where it is precise or injected."""
        return warmset_tick() if self._coarse and self._timer is None else 0.0

    def _add_slot(self, class_name, class_path):
        """The slot of a name, made if need be, with a path; and the path that it had before."""
        cdef Slot slot
        cdef PyObject* name = <PyObject*>class_name
        Py_INCREF(class_name)
        PyUnicode_InternInPlace(&name)
        class_name = _owned(name)
        slot = self._slots.setdefault(class_name, Slot(class_name, None))
        before = slot.path
        if not slot._alive:
            slot._alive = True
            slot.idle_limit = self._idle_limit
            slot.age_limit = self._age_limit
        slot.path = class_path
        self._registered += (class_path is not None) - (before is not None)
        self._layout += 1
        return slot, before

    def _drop_slot(self, Slot slot not None, int cause):
        """Forget a slot, if it is still the one of its name; nothing is put into it any more."""
        if not slot._alive:
            return False
        slot._alive = False
        _hide(slot)
        self._registered -= slot.path is not None
        del self._slots[slot.name]
        self._layout += 1
        self._remove(slot, cause)
        return True

    def _seal(self):
        """Put nothing into any slot any more: the registry is being closed."""
        self._sealed = True

    def _token(self, Slot slot not None):
        """Changes when an instance leaves the slot, or all are cleared: see `_publish`."""
        return <unsigned int>(slot.epoch + self._generation)

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
                _attach(self, slot, content, kind, self._root.older, now, now, 1)
                slot.build_seconds = build_seconds
                slot.serial = <unsigned int>self._builds
                slot.holds += 1
                held = slot.epoch
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
                slot.build_seconds = build_seconds
                slot.serial = <unsigned int>self._builds
                exchanged = slot.epoch
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
        cdef long long much = self._bytes if cause == MEMORY else self._cached
        departed = []
        if slot.holds == 0 and not slot._pinned and much > more_than:
            _detach(self, slot, epoch, cause, departed)
        if departed:
            self._departed(departed)
        return bool(departed)

    def _least_recent(self, Slot spare=None):
        """The slot whose instance was used least recently, of those that may be evicted."""
        cdef PyObject* found = _oldest_free(self, spare)
        return None if found == NULL else <object>found

    def _warm_slots(self):
        """The slots that hold an instance strongly, newest first."""
        return _cached_slots(self, False)

    def _set_bytes(self, Slot slot not None, unsigned int epoch, long long size):
        """Note how big an instance is, -1 if that is not known; whether it is still there."""
        if slot.kind == EMPTY or slot.epoch != epoch:
            return False
        if slot.kind == STRONG:
            self._bytes += max(size, 0) - max(slot.bytes, 0)
        slot.bytes = size
        return True

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
        cdef unsigned int epoch = slot.epoch
        kept = slot.instance() if slot.kind == WEAK else slot.instance
        if slot.kind != EMPTY and kept is instance and slot.epoch == epoch:
            slot.holds += 1
            return epoch
        return -1

    def _insert(
        self, Slot slot not None, instance, double built_at, double last_used, long long uses
    ):
        """
        Write an instance into a slot, at the place in the ring that its last use gives it.

        False if the slot has been forgotten meanwhile, or the registry closed.
        """
        cdef bint written = False
        departed = []
        _vacate(self, slot, REPLACED, departed)
        slot.build_seconds = 0.0
        if slot._alive and not self._sealed and slot.kind == EMPTY:
            written = True
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
            slot.serial = <unsigned int>self._builds
            slot.shared = True
        if departed:
            self._departed(departed)
        return written

    def _insert_weak(self, Slot slot not None, reference):
        """Write a weak reference into a slot; as `_insert`."""
        cdef double now = _now(self)
        cdef bint written = False
        departed = []
        _vacate(self, slot, REPLACED, departed)
        slot.build_seconds = 0.0
        if slot._alive and not self._sealed and slot.kind == EMPTY:
            written = True
            _attach(self, slot, reference, WEAK, NULL, now, now, 1)
        if departed:
            self._departed(departed)
        return written

    def _amend(self, Slot slot not None, double built_at, double last_used, long long uses):
        """Rewrite the times and the count of a cached instance, and move it where they put it."""
        cdef Link* older
        if slot.kind == STRONG:
            older = _place(self, slot, last_used)
            slot.built_at = built_at
            slot.last_used = last_used
            slot.uses = uses
            _unlink(&slot.link)
            _link(&slot.link, older)

    def _remove(self, Slot slot not None, int cause):
        departed = []
        _vacate(self, slot, cause, departed)
        if departed:
            self._departed(departed)
        return bool(departed)

    def _clear(self, int cause):
        """Take everything out: how many were kept strongly, how many weakly, and what left."""
        cdef Slot slot
        cdef Py_ssize_t strong
        departed = []
        self._generation += 1
        while self._root.newer != &self._root:
            slot = <Slot>_slot_at(self._root.newer)
            _detach(self, slot, slot.epoch, cause, departed)
        strong = len(departed)
        if self._weak:
            for slot in list(self._slots.values()):
                if slot.kind == WEAK:
                    _detach(self, slot, slot.epoch, cause, departed)
        return strong, len(departed) - strong, departed

    def _trim(self, Slot spare=None):
        """Evict down to the bound; one slot may be spared."""
        if self._by_policy:
            self._choose_room(spare)
            return
        departed = []
        _make_room(self, self._max_size, departed, spare)
        if departed:
            self._departed(departed)

    def _holders(self):
        """Class name, thread and time of each hold, oldest first."""
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
        return self._cached < self._max_size or _oldest_free(self, None) != NULL

    def _made_room(self):
        """Something was released while builds wait for that; the registry overrides it."""

    def _abandon(self, Slot slot not None):
        """Take an instance out and leave it alone: after a fork it is the parent's."""
        departed = []
        _detach(self, slot, slot.epoch, DISCARDED, departed)
        slot.leaving = None
        return bool(departed)

    def _reset_after_fork(self):
        """There is no lock here that another thread could have held."""

    def _tally(self, int which):
        """Count one more of what `_tallies` names."""
        if not 0 <= which < TALLIES:
            raise IndexError(which)
        self._tallies[which] += 1

    def _counters(self):
        """
        The counters, of one moment.

        Hits, misses, evictions, builds, build seconds, removals by cause, and the tallies.
        """
        # Read before the first object is made for them.
        cdef long long hits = self._hits, misses = self._misses, evictions = self._evictions
        cdef long long builds = self._builds
        cdef long long removals[CAUSES]
        cdef long long tallies[TALLIES]
        cdef double build_seconds = self._build_seconds
        cdef int cause
        for cause in range(CAUSES):
            removals[cause] = self._removals[cause]
        for cause in range(TALLIES):
            tallies[cause] = self._tallies[cause]
        by_cause = tuple([removals[cause] for cause in range(CAUSES)])
        by_name = tuple([tallies[cause] for cause in range(TALLIES)])
        return hits, misses, evictions, builds, build_seconds, by_cause, by_name

    def _entries(self):
        """
        Name, built at, last used, uses, build seconds, holds, bytes: of the cached, newest first.
        """
        cdef Slot slot
        entries = []
        for slot in _cached_slots(self, False):
            if slot.kind == STRONG:
                entries.append(
                    (
                        slot.name,
                        slot.built_at,
                        slot.last_used,
                        slot.uses,
                        slot.build_seconds,
                        slot.holds,
                        slot.bytes,
                    )
                )
        return entries

    def _weak_alive(self):
        """How many weakly kept instances are alive."""
        cdef Slot slot
        cdef Py_ssize_t alive = 0
        if self._weak:
            for slot in list(self._slots.values()):
                if slot.kind == WEAK and slot.instance() is not None:
                    alive += 1
        return alive

    def _ring(self, *, from_oldest=False):
        """The names along one direction of the links, for the structural check."""
        cdef Slot slot
        return [slot.name for slot in _cached_slots(self, from_oldest)]


# -- the ways of a look-up -----------------------------------------------------------------------

cdef inline object _owned(PyObject* new_reference):
    cdef object result = <object>new_reference
    Py_DECREF(result)
    return result


cdef inline double _now(RegistryCore core) except? -1.0:
    if core._timer is None:
        return warmset_clock(core._coarse)
    return core._timer()


cdef inline PyObject* _find(RegistryCore core, object class_name) except? NULL:
    """The slot of a name, borrowed; NULL after counting a miss. The name is an exact str."""
    cdef PyObject* found = core._front[(<size_t><PyObject*>class_name >> 4) & core._front_mask]
    if found != NULL and <PyObject*>(<Slot>found).name == <PyObject*>class_name:
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


cdef void _bring_to_front(RegistryCore core, Slot slot) noexcept:
    """Let a slot be found by the address of its name, in the place of another one if need be."""
    cdef size_t size = core._front_mask + 1
    cdef PyObject** place
    if size < FRONT_AT_MOST and size < <size_t>len(core._slots):
        while size < FRONT_AT_MOST and size < <size_t>len(core._slots):
            size *= 2
        place = <PyObject**>PyMem_Calloc(size, sizeof(PyObject*))
        if place != NULL:  # else the old one goes on
            _drop_front(core)
            core._front = place
            core._front_mask = size - 1
    place = &core._front[(<size_t><PyObject*>slot.name >> 4) & core._front_mask]
    if place[0] != NULL:
        (<Slot>place[0]).place = NULL
    place[0] = <PyObject*>slot
    slot.place = place


cdef void _drop_front(RegistryCore core) noexcept:
    cdef size_t i
    if core._front != NULL:
        for i in range(core._front_mask + 1):
            if core._front[i] != NULL:
                (<Slot>core._front[i]).place = NULL
        PyMem_Free(core._front)
        core._front = NULL


cdef inline PyObject* _warm(
    RegistryCore core, Slot slot, double now, bint hold, bint count, unsigned int* epoch
) except? NULL:
    """A new reference to the instance of a slot; NULL if there is none, or none any more."""
    cdef PyObject* instance
    if (
        slot.kind == STRONG
        and now - slot.last_used <= slot.idle_limit
        and now - slot.built_at <= slot.age_limit
    ):
        instance = <PyObject*>slot.instance
        Py_INCREF(<object>instance)
        slot.last_used = now
        slot.uses += count
        slot.holds += hold
        if not hold:
            slot.shared = True
        core._hits += count
        epoch[0] = slot.epoch
        if core._root.older != &slot.link:
            _unlink(&slot.link)
            _link(&slot.link, core._root.older)
        return instance
    return _warm_or_gone(core, slot, now, hold, count, epoch)


cdef inline object _get(RegistryCore core, object class_name):
    """A look-up without a lease."""
    cdef unsigned int epoch
    cdef double now
    cdef PyObject* found
    cdef PyObject* instance
    if type(class_name) is not str:
        class_name = check_name(class_name)
    now = _now(core)
    found = _find(core, class_name)
    if found != NULL:
        instance = _warm(core, <Slot>found, now, False, True, &epoch)
        if instance != NULL:
            return _owned(instance)
    return _build_and_share(core, class_name)


cdef PyObject* _warm_or_gone(
    RegistryCore core, Slot slot, double now, bint hold, bint count, unsigned int* epoch
) except? NULL:
    cdef Slot kept = slot  # the caller's is borrowed, and foreign code may run from here on
    cdef unsigned int seen
    cdef list departed = []
    if kept.leaving and core._revives and _revive(core, slot, now):
        return _warm(core, slot, now, hold, count, epoch)
    seen = slot.epoch
    if slot.kind == WEAK:
        instance = slot.instance()
        if instance is not None:
            core._hits += count
            epoch[0] = seen
            if slot.epoch == seen:
                slot.last_used = now
                slot.uses += count
                slot.holds += hold
            Py_INCREF(instance)
            return <PyObject*>instance
        _detach(core, slot, seen, COLLECTED, departed)
    elif slot.kind == STRONG:
        _expire(core, slot, now, departed)
        if slot.kind == STRONG and slot.epoch == seen:
            # Held or pinned, so its idle clock stood still; or used since.
            slot.last_used = now
            return _warm(core, slot, now, hold, count, epoch)
    core._misses += count
    if departed:
        core._departed(departed)
    return NULL


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
        if slot.epoch == <unsigned int>held:
            slot.shared = True
            slot.holds -= 1
            if core._cached > core._max_size:  # its closers built others while it was held
                core._trim(slot)
            if core._blocked:
                core._made_room()
        else:
            _give_back(core, slot, <unsigned int>held, slot.last_used, True)
    return instance


cdef inline void _enter(RegistryCore core, Hold* hold, PyObject* slot) noexcept:
    """Note who holds from now on. The slot is borrowed from the holder."""
    hold.slot = slot
    hold.thread = PyThread_get_thread_ident()
    hold.since = (<Slot>slot).last_used
    hold.newer = &core._holds
    hold.older = core._holds.older
    hold.older.newer = hold
    core._holds.older = hold


cdef inline void _leave(Hold* hold) noexcept:
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


cdef Departure _departure_of(Slot slot, unsigned int epoch):
    """What was taken out of a slot under this epoch, and is still held."""
    cdef Departure departure
    if slot.leaving:
        for departure in slot.leaving:
            if departure.epoch == epoch:
                return departure
    return None


cdef int _give_back_departed(
    RegistryCore core, Slot slot, unsigned int epoch, bint share
) except -1:
    cdef Departure departure
    if slot.leaving:
        for departure in slot.leaving:
            if departure.epoch == epoch:
                departure.shared |= share
                departure.holds -= 1
                if departure.holds == 0:
                    slot.leaving.remove(departure)
                    core._let_go(departure)
                break
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
    methods = core._injected.get(class_name)
    return None if methods is None else methods.get(method_name)


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
    if slot.leaving is None and slot.holds > 0:
        slot.leaving = []
    # Making these may have run the collector: the slot may be another one now, or held.
    if slot.kind == EMPTY or slot.epoch != epoch:
        return 0
    if slot.holds > 0 and (cause <= MEMORY or slot.leaving is None):
        return 0
    departed.append(departure)
    departure.class_name = slot.name
    departure.cause = cause
    departure.epoch = epoch
    departure.instance = slot.instance
    departure.routes = slot.routes
    departure.built_at = slot.built_at
    departure.last_used = slot.last_used
    departure.build_seconds = slot.build_seconds
    departure.uses = slot.uses
    departure.bytes = slot.bytes
    departure.serial = slot.serial
    departure.holds = slot.holds
    departure.held = slot.holds > 0
    departure.shared = slot.shared
    departure.weak = slot.kind == WEAK
    if slot.kind == STRONG:
        _unlink(&slot.link)
        core._cached -= 1
        core._bytes -= max(slot.bytes, 0)
    else:
        core._weak -= 1
    slot.kind = EMPTY
    slot.bytes = -1
    slot.instance = None
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
        slot.leaving.append(departure)
    if core._queue is not None:
        core._queue.append(departure)
    return 0


cdef bint _revive(RegistryCore core, Slot slot, double now) except -1:
    """Put back what was taken out of a slot last and is still held; it keeps its epoch."""
    cdef Departure departure
    if slot.kind != EMPTY or not slot.leaving:
        return False
    departure = slot.leaving[len(slot.leaving) - 1]
    if departure.cause == REPLACED or departure.cause == AGED or departure.cause == RECYCLED:
        return False
    slot.leaving.pop()
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
    slot.uses = uses
    slot.instance = content
    slot.kind = kind
    if kind == STRONG:
        _link(&slot.link, older)
        core._cached += 1
    else:
        core._weak += 1


cdef int _vacate(RegistryCore core, Slot slot, int cause, list departed) except -1:
    """Empty a slot, and let no build that is under way fill it."""
    cdef Departure departure
    if slot.kind == EMPTY:
        slot.moves += 1
        slot.epoch = slot.moves
    _detach(core, slot, slot.epoch, cause, departed)
    if cause == REPLACED and slot.leaving:
        for departure in slot.leaving:
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
    if not now - slot.last_used <= slot.idle_limit and not slot._pinned:
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
    cdef Link* link = core._root.newer
    cdef PyObject* slot
    while link != &core._root:
        slot = _slot_at(link)
        if (<Slot>slot).holds == 0 and not (<Slot>slot)._pinned and slot != <PyObject*>spare:
            return slot
        link = link.newer
    return NULL


cdef Link* _place(RegistryCore core, Slot slot, double last_used) noexcept:
    """The neighbour on the older side that a last use at this time gives to a slot."""
    cdef Link* older = core._root.older
    cdef PyObject* other
    while older != &core._root:
        other = _slot_at(older)
        if older != &slot.link and (<Slot>other).last_used <= last_used:
            break
        older = older.older
    return older


cdef list _cached_slots(RegistryCore core, bint from_oldest):
    cdef list slots = [None] * core._cached  # no allocation while the ring is walked
    cdef Link* link = core._root.newer if from_oldest else core._root.older
    cdef Py_ssize_t i = 0
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
        if self._state != FREE:
            raise RuntimeError(f"this lease already holds {self._class_name!r}")
        self._state = ENTERING  # from here on it is nobody else's, however long a build takes
        try:
            now = _now(core)
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
        self._slot = core._slots.get(self._class_name)
        if self._slot is None:
            core._misses += count
            return False
        instance = _warm(core, self._slot, now, True, count, &self._epoch)
        if instance == NULL:
            return False
        self._instance = _owned(instance)
        _enter(core, &self._hold, <PyObject*>self._slot)
        self._state = HELD
        return True

    def _enter_built(self):
        """Go on after a miss: hold what is built here, or by another thread."""
        self._instance, self._slot = _build_and_hold(self._core, self._class_name, &self._epoch)
        if self._slot is not None:
            _enter(self._core, &self._hold, <PyObject*>self._slot)
        self._state = HELD

    def _again(self):
        """Another lease on what this one holds; it is no look-up."""
        cdef Lease lease = Lease(self._core, self._class_name)
        cdef Departure departure
        lease._instance, lease._slot, lease._epoch = self._instance, self._slot, self._epoch
        if lease._slot is not None:
            departure = None
            if lease._slot.epoch == lease._epoch:
                lease._slot.holds += 1
            else:
                departure = _departure_of(lease._slot, lease._epoch)
                if departure is not None:
                    departure.holds += 1
            _enter(lease._core, &lease._hold, <PyObject*>lease._slot)
        lease._state = HELD
        return lease

    def _share(self):
        """From now on somebody else has the instance, too, and holds no lease on it."""
        cdef Departure departure
        if self._slot is not None:
            if self._slot.epoch == self._epoch:
                self._slot.shared = True
            else:
                departure = _departure_of(self._slot, self._epoch)
                if departure is not None:
                    departure.shared = True

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
    if lease._state == HELD:
        lease._state = FREE
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
    # The caller holds the handle, and the handle its core: neither is counted here. The slot is,
    # since a handle is settled anew while its method runs if a name was registered meanwhile.
    cdef RegistryCore core
    cdef Slot slot
    cdef PyObject* instance = NULL
    cdef PyObject* result
    cdef Hold hold
    cdef unsigned int epoch = 0
    cdef double now = _now((<Handle>self)._core)
    if (<Handle>self)._layout != (<Handle>self)._core._layout:
        _settle(<Handle>self, (<Handle>self)._core)
    if (<Handle>self)._injected is not None:
        method = (<Handle>self)._injected
        result = _call(<PyObject*>method, args, nargsf, kwnames)
        if result == NULL:
            _propagate()
        return _owned(result)
    slot = (<Handle>self)._slot
    if slot is None:
        (<Handle>self)._core._misses += 1
    else:
        instance = _warm((<Handle>self)._core, slot, now, True, True, &epoch)
    if instance != NULL:
        warm = _owned(instance)
    else:
        warm, slot = _build_and_hold((<Handle>self)._core, (<Handle>self).class_name, &epoch)
    hold.newer = NULL
    if slot is not None:
        _enter((<Handle>self)._core, &hold, <PyObject*>slot)
    try:
        result = _call_method(
            <PyObject*>warm,
            (<Handle>self).class_name,
            (<Handle>self).method_name,
            args,
            nargsf,
            kwnames,
        )
        if not _goes_on(result) or slot is None:
            return _owned(result)
        core = (<Handle>self)._core
        outcome = _owned(result)
        lease = _adopt(core, (<Handle>self).class_name, slot, epoch)
        slot = None
        return core._prolong(lease, outcome)
    finally:
        _leave(&hold)
        warm = None  # at the last release, who else refers to it is counted
        if slot is not None:
            _release((<Handle>self)._core, slot, epoch)


cdef inline bint _goes_on(PyObject* result) noexcept:
    """Whether what a method returned goes on running, and needs its instance."""
    return PyGen_CheckExact(result) or PyCoro_CheckExact(result) or PyAsyncGen_CheckExact(result)


cdef int _settle(Handle handle, RegistryCore core) except -1:
    """Find again what the names mean, after a class or a method was added or taken away."""
    injected = _find_injected(core, handle.class_name, handle.method_name)
    # The old ones stay in a local until the handle is whole: dropping them may call it.
    before = handle._injected, handle._slot
    handle._layout = core._layout
    handle._injected = None if injected is None else (<Injected>injected).method
    handle._slot = core._slots.get(handle.class_name)
    del before
    return 0


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
    Py_DECREF(<object>method)
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
    cdef readonly long long _routes
    cdef readonly long long _refusals
    cdef readonly long long _drops_prevented

    def __init__(self, RegistryCore registry not None):
        self._registry = registry

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
            if (<Injected>source).plan is None:
                (<Injected>source).plan = Route(None, self._compile(method))
            route = (<Injected>source).plan
        else:
            lease = source
            found = PyObject_GetAttr(<PyObject*>lease._instance, <PyObject*>method_name)
            if found == NULL or not PyCallable_Check(found):
                _not_found(lease._instance, class_name, method_name, found)
            method = _owned(found)
            route = _route_of(
                self, lease._slot, lease._epoch, lease._instance, method_name, method
            )
        self._routes += 1
        args, keywords = self._route(route.plan, class_name, method_name, payload)
        return method, args, keywords

    def _refused(self, long long drops):
        """Count a payload that was refused, and the arguments that nothing would have taken."""
        self._refusals += 1
        self._drops_prevented += drops


cdef object _execute(
    PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* kwnames
):
    cdef ExecutorCore executor = <ExecutorCore>self
    cdef RegistryCore core = executor._registry
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
        result = _run(executor, slot, epoch, warm, class_name, method_name, args + 2, kwnames)
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
        if slot is not None:
            route = slot.recent
            if (
                route is not None
                and <PyObject*>route.name == <PyObject*>method_name
                and <PyObject*>route.token == found
            ):
                count = 0 if kwnames == NULL else PyTuple_GET_SIZE(kwnames)
                if count <= STACK and _fits(route, values, kwnames, count):
                    executor._routes += 1
                    return _call_function(found, <PyObject*>instance, values, count, kwnames)
        method = PyMethod_New(found, <PyObject*>instance)
    route = _route_of(executor, slot, epoch, instance, method_name, method)
    return _call_routed(executor, route, class_name, method_name, method, values, kwnames)


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
    if slot is not None and slot.routes is not None:
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
    if slot is not None and slot.kind != EMPTY and slot.epoch == epoch:
        if slot.routes is None:
            slot.routes = {}
        slot.routes[method_name] = route
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
    executor._routes += 1
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


cdef inline bint _has_seen(Route route, PyObject* kwnames, Py_ssize_t count) noexcept:
    cdef PyObject* seen = <PyObject*>route.seen
    cdef Py_ssize_t i
    if seen == <PyObject*>None or PyTuple_GET_SIZE(seen) != count:
        return False
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
    method = injected.method
    if injected.plan is None:
        injected.plan = Route(None, executor._compile(method))
    return _call_routed(
        executor, <Route>injected.plan, class_name, method_name, method, values, kwnames
    )


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
