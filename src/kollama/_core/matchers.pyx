"""What libraries such as llguidance say of the next token, for the links of a chain."""

cimport cython
from kollama._core.capi cimport *
from kollama._core.model cimport Model

import weakref

_models = weakref.WeakValueDictionary()  # by handle


@cython.final
cdef class Matchers:
    """The matchers of one sampler (`kollama.structured.Matcher`), each known by its index."""

    def __cinit__(self):
        self.items = []
        self.error = None

    cdef Matchers clone(self):
        cdef Matchers other = Matchers()
        other.items = [matcher.clone() for matcher in self.items]
        return other

    cdef int attach(self, kollama_sampler * sampler) except -1:
        """The sampler calls these from now on, and does not keep them alive."""
        cdef kollama_matcher_calls calls
        calls.bind = _bind
        calls.begin = _begin
        calls.allows = _allows
        calls.accept = _accept
        calls.mask = _mask
        kollama_sampler_set_matchers(sampler, &calls, <void *> self)
        return 0


cdef int know(Model model) except -1:
    """Of a model that a sampler may be bound to: the native side names it by its handle."""
    _models[<size_t> model.handle()] = model
    return 0


# These may run on an engine's thread. Nobody waits for that with the GIL held, so it gets it.

cdef int _bind(void * user, size_t index, const kollama_model * model) noexcept with gil:
    cdef Matchers self = <Matchers> user
    try:
        self.items[index].bind(_models[<size_t> model])
        return 0
    except BaseException as error:
        self.error = error
        return -1


cdef int _begin(void * user, size_t index) noexcept with gil:
    cdef Matchers self = <Matchers> user
    try:
        self.items[index].begin()
        return 0
    except BaseException as error:
        self.error = error
        return -1


cdef int _allows(void * user, size_t index, int32_t token) noexcept with gil:
    cdef Matchers self = <Matchers> user
    try:
        return self.items[index].allows(token)
    except BaseException as error:
        self.error = error
        return -1


cdef int _accept(void * user, size_t index, int32_t token) noexcept with gil:
    cdef Matchers self = <Matchers> user
    try:
        return self.items[index].accept(token)
    except BaseException as error:
        self.error = error
        return -1


cdef int _mask(void * user, size_t index, uint32_t * bits, size_t n_words) noexcept with gil:
    cdef Matchers self = <Matchers> user
    try:
        self.items[index].mask(<size_t> bits, n_words * sizeof(uint32_t))
        return 0
    except BaseException as error:
        self.error = error
        return -1
