# The compiled calls: leases, handles, and `execute`. Twin of `_calls_py`.
#
# Each looks an instance up and holds it in one step, runs a method, and releases the hold.


# -- leases --------------------------------------------------------------------------------------

@cython.final
@cython.no_gc_clear  # a weak-reference callback may meet it amid a collection: it stays whole
cdef class Lease:
    """
    Holds an instance for the time of a ``with`` block; made by `Registry.use`.

    It may be entered again after its exit, but not while it is held. A lease that is dropped
    while it is held releases its instance.
    """

    cdef RegistryCore _core
    cdef readonly object class_name  # a str, or the key of a family
    cdef readonly object instance
    cdef Entry _entry
    cdef Hold* _hold
    cdef int _state

    def __cinit__(self, RegistryCore core not None, class_name):
        self._core = core
        self.class_name = class_name

    def __getattr__(self, name):
        raise AttributeError(
            f"a lease has no attribute {name!r}; enter it to get the instance: "
            "with registry.use(...) as instance"
        )

    @classmethod
    def __class_getitem__(cls, parameters):
        return cls

    @property
    def entry(self):
        """The entry that is held; None while there is none."""
        return self._entry

    def __enter__(self):
        cdef RegistryCore core = self._core
        cdef PyObject* held = NULL
        cdef PyObject* instance
        cdef double now
        # From here on nobody else can enter it, however long a build takes.
        if not warmset_swap_state(&self._state, FREE, ENTERING):
            raise RuntimeError(f"this lease already holds {self.class_name!r}")
        try:
            now = _now(core)
            instance = _look_up(core, self.class_name, now, &held)
            if instance != NULL:
                self.instance = _owned(instance)
                self._entry = _owned(held)
            else:
                self.instance, self._entry = _build(core, self.class_name)
        except BaseException:
            self._state = FREE
            raise
        _entered(self, now)
        return self.instance

    def take(self, find):
        """Hold what a callable finds for a holder, which it returns; False if that is nothing."""
        cdef Holder holder = Holder()
        cdef double now = _now(self._core)
        if not warmset_swap_state(&self._state, FREE, ENTERING):
            raise RuntimeError(f"this lease already holds {self.class_name!r}")
        try:
            instance = find(holder)
            if instance is None or holder.entry is None:
                self._state = FREE
                return False
            _check_owner(self._core, (<Entry?>holder.entry).slot)
            self.instance, self._entry = instance, holder.entry
        except BaseException:
            self._state = FREE
            self._core.give_back(holder, None)
            raise
        _entered(self, now)
        return True

    def __dealloc__(self):
        if self._hold != NULL:
            warmset_return_hold(self._hold)

    def __exit__(self, *exception):
        _end(self)

    def __del__(self):
        # When the interpreter exits, a daemon thread may be frozen with the lock, and what closes
        # instances may be gone.
        if not _is_finalizing():
            _end(self)

    def __reduce__(self):
        raise TypeError("a lease holds an instance of this process: it cannot be pickled or copied")

    def __repr__(self):
        state = "held" if self._state == ENTERED else "not held"
        return f"<warmset lease of {self.class_name!r}, {state}>"


cdef int _entered(Lease lease, double since) except -1:
    """Record the hold that a lease has by now."""
    # A lease may be released by another thread than the one that entered it.
    warmset_share_reference(<PyObject*>lease.instance)
    lease._state = ENTERED
    if lease._entry is not None:
        lease._hold = warmset_take_hold(
            lease._core._table, <PyObject*>lease._entry, PyThread_get_thread_ident(), since
        )
        if lease._hold == NULL:
            _end(lease)
            raise MemoryError
    return 0


cdef int _end(Lease lease) except -1:
    """Release what a lease holds, if it holds anything."""
    cdef Entry entry
    cdef Hold* hold
    if warmset_swap_state(&lease._state, ENTERED, FREE):
        entry, hold = lease._entry, lease._hold
        lease._hold = NULL
        if hold != NULL and not warmset_return_hold(hold):
            entry = None  # it was dropped after a fork
        lease.instance = lease._entry = None
        if entry is not None:
            _release(lease._core, entry)
    return 0


cdef Lease _adopt(RegistryCore core, object class_name, Entry entry, Hold* hold):
    """A lease that takes over the hold of a call."""
    cdef Lease lease = Lease(core, class_name)
    lease._entry = entry
    lease._hold = hold
    lease._state = ENTERED
    return lease


# -- families ------------------------------------------------------------------------------------

@cython.no_gc_clear
cdef class FamilyCore:
    """
    The part of a family that a hit runs through.

    Args:
        registry: The registry.
        keys: Those keys that are str -> what their instances are found by.
    """

    cdef RegistryCore _core
    cdef dict _keys

    def __cinit__(self, RegistryCore registry not None, *args, **kwargs):
        self._core = registry
        self._keys = {}

    def __init__(self, registry, dict keys not None):
        self._keys = keys

    @classmethod
    def __class_getitem__(cls, parameters):
        return cls

    def get(self, key):
        """
        Return the instance of a key, building it if it is not warm.

        Args:
            key: A str, an int, or a tuple of them.

        Returns:
            The instance; the same one while it stays warm.

        Raises:
            TypeError: The key is of another type.
            MethodRegistryError: As `Registry.get_instance`.

        Thread-safe; O(1) on a hit.
        """
        known = None
        if type(key) is str:
            known = _item(<PyObject*>self._keys, <PyObject*>key)
        return _get_named(self._core, self.key(key) if known is None else known)


# -- handles -------------------------------------------------------------------------------------

@cython.final
@cython.no_gc_clear
cdef class Handle:
    """
    Calls one method of one class's instance, building it when it is not warm.

    Made by `Registry.bind`. Each call looks the instance up and holds it until the method
    returns, or until the generator or coroutine that it returned has ended; the arguments go to the
    method as they are. A handle is pickled by its names, with its registry.
    """

    cdef void* _vectorcall
    cdef RegistryCore _core
    cdef Slot _slot  # of the name; valid while it is alive
    cdef readonly object class_name  # a str, or the key of a family
    cdef readonly str method_name

    def __cinit__(self, RegistryCore core not None, class_name, method_name):
        self._vectorcall = <void*>_call_handle
        self._core = core
        self.class_name = class_name
        self.method_name = method_name

    @classmethod
    def __class_getitem__(cls, parameters):
        return cls

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
    cdef Entry entry = None
    cdef PyObject* instance
    cdef PyObject* held = NULL
    cdef PyObject* result
    cdef Hold* hold = NULL
    cdef double now
    if core._injected:
        injected = _find_injected(core, handle.class_name, handle.method_name)
        if injected is not None:
            return _checked(_call(<PyObject*>injected.method, args, nargsf, kwnames))
    now = _now(core)
    instance = _look_up_by_handle(handle, core, now, &held)
    if instance != NULL:
        warm = _owned(instance)
        entry = _owned(held)
    else:
        warm, entry = _build(core, handle.class_name)
    try:
        hold = _record(core, entry, now)
        result = _call_method(
            <PyObject*>warm,
            handle.class_name,
            handle.method_name,
            args,
            nargsf,
            kwnames,
        )
        if not _needs_instance(result):
            return _owned(result)
        outcome = _owned(result)
        lease = _adopt(core, handle.class_name, entry, hold)
        hold = NULL
        entry = None
        return core.hold_while_running(lease, outcome)
    finally:
        if hold != NULL:
            warmset_return_hold(hold)
        warm = None  # at the last release, other references to it are counted
        if entry is not None:
            _release(core, entry)


cdef extern from *:
    """
    #if PY_VERSION_HEX < 0x030D0000
      #define warmset_is_finalizing _Py_IsFinalizing
    #else
      #define warmset_is_finalizing Py_IsFinalizing
    #endif
    /* Whether the result of a method still needs its instance: see `streams`. */
    static inline int warmset_needs_instance(PyObject *result) {
        PyTypeObject *kind = Py_TYPE(result);
        PyAsyncMethods *methods = kind->tp_as_async;
        if (kind->tp_iternext != NULL && PyIter_Check(result))
            return 1;
        return methods != NULL
            && (methods->am_await != NULL || methods->am_anext != NULL
                || methods->am_aiter != NULL);
    }
    """
    bint _needs_instance "warmset_needs_instance"(PyObject*) noexcept
    bint _is_finalizing "warmset_is_finalizing"() noexcept


cdef inline object _checked(PyObject* result):
    """The result of a C call, or its error."""
    if result == NULL:
        _propagate()
    return _owned(result)


cdef inline PyObject* _look_up_by_handle(
    Handle handle, RegistryCore core, double now, PyObject** held
) except? NULL:
    """As `_look_up`, by the slot that a handle remembers, while it is the one of its name."""
    cdef Stripe* stripe = warmset_enter(core._table)
    cdef PyObject* slot
    cdef PyObject* instance = NULL
    if stripe != NULL:
        slot = <PyObject*>handle._slot
        warmset_fence_after_load()
        if slot != <PyObject*>None and (<Slot>slot)._alive:
            instance = _read(core, stripe, <Slot>slot, now, held)
        warmset_leave(stripe)
        if instance != NULL:
            return instance
    _remember_slot(handle, core)
    return _look_up(core, handle.class_name, now, held)


cdef int _remember_slot(Handle handle, RegistryCore core) except -1:
    cdef Slot slot = _slot_named(core, handle.class_name)
    with cython.critical_section(handle):
        before = handle._slot  # dropped when no reader has it any more
        handle._slot = slot
        if before is not slot:
            warmset_wait(core._table)
        del before
    return 0


cdef inline PyObject* _call(
    PyObject* callable, PyObject* const* args, size_t nargsf, PyObject* kwnames
) noexcept:
    """
    Call foreign code; on an error NULL, with the error set.

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


cdef PyObject* _no_code = <PyObject*>None


@cython.final
cdef class Route:
    """
    The part of a payload's check that needs no call into Python.

    It only ever accepts; what it cannot decide goes to the plan, which decides and explains.
    """

    cdef readonly object token
    # Of the function that the token is; a reload exchanges them in place.
    cdef object code
    cdef tuple defaults
    cdef PyObject** code_at
    cdef readonly object plan
    cdef dict parameters
    cdef Py_ssize_t total  # of them
    cdef bint unchecked  # every payload is passed as it is
    cdef Py_ssize_t required
    # The names of a payload that fitted, and their parameters: the next one with the same names, by
    # identity (those in a caller's code are interned), needs no look-up of them.
    cdef tuple seen
    cdef list positions
    cdef unsigned int unseen  # payloads with other names since

    def __cinit__(self, token, plan):
        self.token = token
        self.code_at = &_no_code
        if PyFunction_Check(<PyObject*>token):
            self.code = token.__code__
            self.defaults = token.__defaults__, token.__kwdefaults__
            self.code_at = &(<FunctionSlots*><PyObject*>token).func_code
        self.plan = plan
        self.unchecked = plan.unchecked
        if plan.direct is not None:
            self.parameters = {
                name: Parameter(required, types) for name, required, types in plan.direct
            }
            self.total = len(plan.direct)
            self.required = sum([required for _, required, _ in plan.direct])


cdef inline bint _is_current(Route route) noexcept:
    """Whether the function still has the code that the route was compiled from."""
    return route.code_at[0] == <PyObject*>route.code


cdef bint _has_defaults(Route route):
    """Whether it still has the same defaults, which a payload with all arguments does not need."""
    if route.defaults is None:
        return True
    function = route.token
    return function.__defaults__ is route.defaults[0] and (
        function.__kwdefaults__ is route.defaults[1]
    )


@cython.no_gc_clear
cdef class ExecutorCore:
    """
    The part of an executor that a call on a warm instance runs through.

    Args:
        registry: The registry that provides the instances.
    """

    cdef readonly RegistryCore _registry
    cdef Table* _table  # of what the threads have routed
    cdef long long routes
    cdef readonly long long _refusals
    cdef readonly long long _drops_prevented

    def __cinit__(self, *args, **kwargs):
        self._table = warmset_new_table()
        if self._table == NULL:
            raise MemoryError

    def __init__(self, RegistryCore registry not None):
        # A call borrows the registry, so that one is never replaced.
        with cython.critical_section(self):
            if self._registry is not None:
                raise RuntimeError("this executor was initialised already")
            self._registry = registry

    def __dealloc__(self):
        warmset_drop_table(self._table)

    @property
    def _routes(self):
        return self.routes + <long long>warmset_hits(self._table)

    def _count_route(self):
        """Count a routed payload."""
        _count_route(self)

    def _known_route(self, Entry entry not None, method_name):
        """Return the route that an entry has for a method, or None."""
        return _known_route(entry, method_name)

    def _keep_route(self, Entry entry not None, str method_name, token, plan):
        """Keep a compiled plan in an entry, as long as the name finds what it was compiled from."""
        cdef Route route = Route(token, plan)
        fresh = {}
        _begin(self._registry, entry.slot)
        try:
            if entry._content is not None:
                if entry.routes is None:
                    warmset_fence()  # it is whole before anybody sees it
                    entry.routes = fresh
                # Dropped after the change.
                _before, _recent = entry.routes.get(method_name), entry.recent
                entry.routes[method_name] = route
                if not FREE_THREADED:
                    entry.recent = None
        finally:
            _unlock(self._registry)

    def _count_refusal(self, long long drops):
        """Count a refused payload, and the arguments in it that the method does not take."""
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
    cdef Entry entry = None
    cdef Hold* hold = NULL
    cdef PyObject* held = NULL
    cdef PyObject* instance
    cdef double now
    if core is None:
        raise AttributeError("this executor was not initialised")
    if count != 2 or type(<object>args[0]) is not str or type(<object>args[1]) is not str:
        return _execute_slowly(executor, "_execute_named", args, count, kwnames)
    class_name = <object>args[0]
    method_name = <object>args[1]
    if not PyUnicode_GET_LENGTH(<PyObject*>class_name) or not PyUnicode_GET_LENGTH(
        <PyObject*>method_name
    ):
        return _execute_slowly(executor, "_execute_named", args, count, kwnames)
    if core._injected and _find_injected(core, class_name, method_name) is not None:
        return _execute_slowly(executor, "_execute_injected", args, count, kwnames)
    now = _now(core)
    instance = _look_up(core, class_name, now, &held)
    if instance != NULL:
        warm = _owned(instance)
        entry = _owned(held)
    else:
        try:
            warm, entry = _build(core, class_name)
        except MethodRegistryError as error:
            return executor.unavailable(class_name, method_name, error)
    try:
        hold = _record(core, entry, now)
        result = _run(executor, entry, warm, class_name, method_name, args + 2, kwnames)
        if _needs_instance(<PyObject*>result):
            lease = _adopt(core, class_name, entry, hold)
            hold = NULL
            entry = None
            return core.hold_while_running(lease, result)
        return result
    finally:
        if hold != NULL:
            warmset_return_hold(hold)
        warm = None  # at the last release, other references to it are counted
        if entry is not None:
            _release(core, entry)


cdef object _execute_slowly(
    ExecutorCore executor, str how, PyObject* const* args, Py_ssize_t count, PyObject* kwnames
):
    """A call in which the names have to be found first, or whose method was injected."""
    cdef Py_ssize_t i
    names = [<object>args[i] for i in range(count)]
    return getattr(executor, how)(*names, **_payload(args + count, kwnames))


cdef dict _payload(PyObject* const* values, PyObject* kwnames):
    cdef Py_ssize_t i, count = 0 if kwnames == NULL else PyTuple_GET_SIZE(kwnames)
    return {<object>PyTuple_GET_ITEM(kwnames, i): <object>values[i] for i in range(count)}


cdef object _run(
    ExecutorCore executor,
    Entry entry,
    object instance,
    object class_name,
    object method_name,
    PyObject* const* values,
    PyObject* kwnames,
):
    cdef Route route
    cdef PyObject* found
    cdef PyObject* token
    cdef Py_ssize_t count = 0 if kwnames == NULL else PyTuple_GET_SIZE(kwnames)
    cdef bint bound = False
    try:
        found = _method_of(instance, class_name, method_name, &bound)
    except MethodNotFoundError as error:
        return executor.unavailable(class_name, method_name, error)
    method = _owned(found)
    token = found
    if bound and PyMethod_Check(found):
        token = PyMethod_GET_FUNCTION(found)
    route = None if FREE_THREADED else entry.recent
    if route is None or <PyObject*>route.token != token:
        route = _known_route(entry, method_name)
        if not FREE_THREADED:
            entry.recent = route
    if (
        route is not None
        and <PyObject*>route.token == token
        and _is_current(route)
        and count <= STACK
        and _fits(route, values, kwnames, count)
    ):
        _count_route(executor)
        if bound:
            return _checked(_call(found, values, 0, kwnames))
        return _call_function(found, <PyObject*>instance, values, count, kwnames)
    if not bound:
        method = PyMethod_New(found, <PyObject*>instance)
    plan = executor._plan_of(entry, instance, method_name, method)
    _count_route(executor)
    args, keywords = executor._route(
        plan, method, class_name, method_name, _payload(values, kwnames)
    )
    return method(*args, **keywords)


cdef inline Route _known_route(Entry entry, object method_name):
    """The route that an entry has for a method; who calls has a hold on the entry."""
    # The dict is set once, and taken away only when the entry is closed.
    cdef PyObject* routes = <PyObject*>entry.routes
    warmset_fence_after_load()
    return None if routes == <PyObject*>None else _item(routes, <PyObject*>method_name)


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
    warmset_join(executor._table)
    _unlock(executor._registry)
    return warmset_own(executor._table)


cdef object _call_function(
    PyObject* function,
    PyObject* instance,
    PyObject* const* values,
    Py_ssize_t count,
    PyObject* kwnames,
):
    """Call a function with its self before the values; no object is made to bind the two."""
    cdef PyObject* stack[STACK + 2]
    cdef Py_ssize_t i
    stack[1] = instance
    for i in range(count):
        stack[i + 2] = values[i]
    return _checked(_call(function, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, kwnames))


cdef bint _fits(
    Route route, PyObject* const* values, PyObject* kwnames, Py_ssize_t count
) except -1:
    """Whether a payload is valid: all that is required, nothing else, of exact types."""
    cdef Py_ssize_t i, required = 0
    cdef PyObject* found
    cdef list positions
    if route.parameters is None:
        return route.unchecked
    if _has_seen(route, kwnames, count):
        for i in range(count):
            found = PyList_GET_ITEM(route.positions, i)
            if not _is_of((<Parameter>found).types, values[i]):
                return False
        return count == route.total or _has_defaults(route)
    for i in range(count):
        found = PyDict_GetItemWithError(
            route.parameters, <object>PyTuple_GET_ITEM(kwnames, i)
        )
        if found == NULL or not _is_of((<Parameter>found).types, values[i]):
            return False
        required += (<Parameter>found).required
    if required != route.required or (count != route.total and not _has_defaults(route)):
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
    AttributeError: The method is not available; the cause is chained. In degraded mode
        None is returned and a warning is logged instead.

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
