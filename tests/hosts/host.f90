! The Fortran host of test_hosts.py, with the module npcache: builds the calls that a script on standard input says, the one
! that tests/c/keys.c reads, and answers as that does.
!
! What Fortran has no number for, integers of 64 bits and more without a sign, it cannot call; and where the layout counts,
! no arrays, since those of Fortran are always column-major. The answer to `compute` and `ask` is `cannot` then.
program host
    use npcache
    implicit none
    character(len=20000) :: line, words(6)
    integer, parameter :: item_bytes(14) = [1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 8, 16]
    type(c_ptr) :: cache = c_null_ptr, function = c_null_ptr, args = c_null_ptr, error
    integer(c_int32_t) :: status
    logical :: can = .true., strict = .false.
    integer :: failed

    do
        read (*, '(a)', iostat=failed) line
        if (failed /= 0) exit
        words = split(line)
        call run(trim(words(1)))
    end do
    call npcache_args_free(args)
    call npcache_function_free(function)
    call npcache_free(cache)

contains

    function split(text) result(parts)
        character(*), intent(in) :: text
        character(len(words)) :: parts(size(words))
        integer :: i, first, last

        parts = ''
        first = 1
        do i = 1, size(parts)
            last = index(text(first:), ' ') + first - 1
            parts(i) = text(first:last - 1)
            first = last + 1
        end do
    end function

    ! The bytes of a word: generated, repeated, or hexadecimal digits.
    recursive function data_of(word) result(bytes)
        character(*), intent(in) :: word
        integer(c_int8_t), allocatable :: bytes(:)
        integer(c_int64_t) :: multiply, length, i
        integer :: colon, byte

        colon = index(word, ':')
        select case (word(1:1))
        case ('-')
            allocate (bytes(0))
        case ('*')
            read (word(2:colon - 1), *) multiply
            read (word(colon + 1:), *) length
            bytes = [(signed(int(iand(shiftr(i * multiply, 24), 255_c_int64_t))), i = 0, length - 1)]
        case ('+')
            read (word(colon + 1:), *) length
            bytes = data_of(word(2:colon - 1))
            bytes = reshape(bytes, [size(bytes) * length], pad=bytes)
        case default
            allocate (bytes(len_trim(word) / 2))
            do i = 1, size(bytes)
                read (word(2 * i - 1:2 * i), '(z2)') byte
                bytes(i) = signed(byte)
            end do
        end select
    end function

    pure function signed(byte)
        integer, intent(in) :: byte
        integer(c_int8_t) :: signed

        signed = int(merge(byte, byte - 256, byte < 128), c_int8_t)
    end function

    ! The text of a word, with a NUL behind it.
    function text_of(word) result(text)
        character(*), intent(in) :: word
        character(:), allocatable :: text
        integer(c_int8_t), allocatable :: bytes(:)

        bytes = [data_of(word), 0_c_int8_t]
        allocate (character(size(bytes)) :: text)
        text = transfer(bytes, text)
    end function

    function numbers_of(word) result(numbers)
        character(*), intent(in) :: word
        integer(c_int64_t), allocatable :: numbers(:)
        integer :: i

        if (word == '-') then
            allocate (numbers(0))
        else
            allocate (numbers(count([(word(i:i) == ',', i = 1, len_trim(word))]) + 1))
            read (word, *) numbers
        end if
    end function

    subroutine run(operation)
        character(*), intent(in) :: operation
        integer(c_int8_t), allocatable, target :: bytes(:)
        character(:), allocatable :: text
        integer(c_int64_t) :: number
        real(c_double) :: real_number

        select case (operation)
        case ('cache')
            status = npcache_new(text_of(words(2)), c_null_ptr, cache, error)
            call npcache_f_check(status, error)
        case ('function')
            call npcache_function_free(function)
            status = npcache_function_new(cache, text_of(words(2)), text_of(words(3)), function, error)
            call npcache_f_check(status, error)
        case ('dependency')
            status = npcache_function_add_dependency(function, text_of(words(2)), text_of(words(3)), error)
            call npcache_f_check(status, error)
        case ('layout')
            strict = text_of(words(2)) == 'strict'//c_null_char
            status = npcache_function_set(function, 'layout'//c_null_char, text_of(words(2)), error)
            call npcache_f_check(status, error)
        case ('args')
            call npcache_args_free(args)
            args = npcache_args_new()
            can = .true.
        case ('ready')
            call npcache_args_free(args)
            bytes = data_of(words(2))
            status = npcache_args_from_bytes(c_loc(bytes), size(bytes, kind=c_size_t), args, error)
            call npcache_f_check(status, error)
            can = .true.
        case ('null')
            status = npcache_args_add_null(args)
        case ('bool')
            status = npcache_args_add_bool(args, merge(1_c_int32_t, 0_c_int32_t, words(2) == '1'))
        case ('int')
            read (words(2), *) number
            status = npcache_args_add_int(args, number)
        case ('uint', 'bigint')
            can = .false.
        case ('float')
            read (words(2), '(z16)') number
            real_number = transfer(number, real_number)
            status = npcache_args_add_float(args, real_number)
        case ('scalar')
            read (words(2), *) number
            bytes = data_of(words(3))
            status = npcache_args_add_scalar(args, int(number, c_int32_t), c_loc(bytes))
        case ('string')
            text = text_of(words(2))
            status = npcache_args_add_string(args, text, len(text, c_size_t) - 1)
        case ('bytes')
            bytes = data_of(words(2))
            status = npcache_args_add_bytes(args, c_loc(bytes), size(bytes, kind=c_size_t))
        case ('file')
            status = npcache_args_add_file(args, text_of(words(2)))
        case ('list')
            status = npcache_args_begin_list(args)
        case ('map')
            status = npcache_args_begin_map(args)
        case ('end')
            status = npcache_args_end(args)
        case ('name')
            status = npcache_args_key(args, text_of(words(2)))
        case ('array', 'descr')
            call add_array(operation == 'array')
        case ('compute', 'ask')
            call compute_or_ask(operation == 'compute')
        case default
            error stop 'no such operation'
        end select
    end subroutine

    ! array dtype shape strides buffer offset: the same elements as an array of Fortran's. An element type that only a descr
    ! names is one of other languages.
    subroutine add_array(numbered)
        logical, intent(in) :: numbered
        integer(c_int64_t), allocatable :: extents(:), strides(:), indices(:)
        integer(c_int8_t), allocatable :: buffer(:)
        integer(c_int8_t), allocatable, target :: elements(:)
        integer(c_int64_t) :: offset, at, i
        integer :: dtype, item, axis

        can = can .and. numbered .and. .not. strict
        if (.not. can) return
        read (words(2), *) dtype
        read (words(6), *) offset
        item = item_bytes(dtype)
        extents = numbers_of(words(3))
        allocate (strides(size(extents)), indices(size(extents)))
        if (words(4) == '~') then
            strides = [(item * product(extents(axis + 1:)), axis = 1, size(extents))]
        else
            strides = numbers_of(words(4))
        end if
        buffer = data_of(words(5))
        allocate (elements(item * product(extents)))
        indices = 0
        do i = 0, product(extents) - 1
            at = offset + dot_product(indices, strides)
            elements(item * i + 1:item * (i + 1)) = buffer(at + 1:at + item)
            do axis = 1, size(extents)
                indices(axis) = indices(axis) + 1
                if (indices(axis) < extents(axis)) exit
                indices(axis) = 0
            end do
        end do
        status = npcache_f_args_add_array(args, dtype, extents, c_loc(elements))
    end subroutine

    subroutine compute_or_ask(computes)
        logical, intent(in) :: computes
        type(c_ptr) :: found, todo
        type(npcache_view) :: view
        integer(c_int64_t), pointer :: extents(:)
        integer(c_int8_t), pointer :: bytes(:)
        integer(c_int32_t) :: order
        integer :: dtype, i

        if (can) then
            status = npcache_begin(function, args, -1_c_int64_t, found, todo, error)
            call npcache_f_check(status, error)
        end if
        if (.not. can) then
            print '(2a)', trim(words(2)), ' cannot'
        else
            if (c_associated(todo)) then
                if (.not. computes) error stop 'this was not to be computed'
                read (words(3), *) dtype
                order = merge(NPCACHE_ORDER_F, NPCACHE_ORDER_C, words(5) == 'f')
                call c_f_pointer(npcache_output_alloc(todo, c_null_char, dtype, size(numbers_of(words(4))), &
                    numbers_of(words(4)), order), bytes, [size(data_of(words(6)))])
                bytes = data_of(words(6))
                status = npcache_output_commit(todo)
                status = npcache_end(todo, found, error)
                call npcache_f_check(status, error)
            end if
            status = npcache_buffer_view(found, 0, view, c_sizeof(view))
            call c_f_pointer(view%shape, extents, [view%ndim])
            call c_f_pointer(view%data, bytes, [view%nbytes])
            write (*, '(4a,i0,a)', advance='no') trim(words(2)), ' ', &
                trim(merge('computed', 'found   ', npcache_buffer_origin(found) == NPCACHE_ORIGIN_COMPUTED)), ' ', &
                view%dtype, ' '
            if (view%ndim == 0) write (*, '(a)', advance='no') '-'
            write (*, '(*(i0,:,","))', advance='no') extents
            write (*, '(3a)', advance='no') ' ', merge('f', 'c', iand(view%flags, NPCACHE_ORDER_F) /= 0), ' '
            if (size(bytes) == 0) write (*, '(a)', advance='no') '-'
            print '(*(z2.2))', [(iand(int(bytes(i)), 255), i = 1, size(bytes))]
            call npcache_buffer_release(found)
        end if
        flush (6)
    end subroutine
end program
