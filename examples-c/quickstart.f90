! A table of Bessel functions J_n(x), integrated once and then read from ./quickstart-cache: run it twice.
!
!     gfortran npcache.f90 quickstart.f90 -lnpcache -Wl,--build-id

! The expensive part. In a module, since an internal procedure of a program has no lasting address to know it by.
module bessel_functions
    use, intrinsic :: iso_c_binding
    implicit none

contains

    ! table(n + 1, k) is J_n at the kth of equally spaced x.
    subroutine fill(table)
        real(c_double), intent(out) :: table(:, :)
        integer :: n, k

        do k = 1, size(table, 2)
            do n = 0, size(table, 1) - 1
                table(n + 1, k) = bessel(n, (k - 1) / (size(table, 2) - 1.0_c_double))
            end do
        end do
    end subroutine

    ! Bessel's integral, J_n(x) = 1/pi times that of cos(n t - x sin t) from 0 to pi, by the trapezoidal rule.
    function bessel(n, x) result(integral) bind(C)
        integer(c_int), value :: n
        real(c_double), value :: x
        real(c_double) :: integral
        real(c_double), parameter :: pi = acos(-1.0_c_double)
        integer, parameter :: steps = 200000
        integer :: i

        integral = 0.5_c_double * (1.0_c_double + cos(n * pi))
        do i = 1, steps - 1
            integral = integral + cos(n * (i * pi / steps) - x * sin(i * pi / steps))
        end do
        integral = integral / steps
    end function
end module

program quickstart
    use bessel_functions
    use npcache
    implicit none
    integer(c_int64_t) :: extents(2) = [4, 6]      ! n from 0 to 3; x from 0 to 1
    type(c_ptr) :: cache, function, args, todo, result, address, error
    real(c_double), pointer :: table(:, :)
    integer(c_int32_t) :: status

    status = npcache_new('quickstart-cache'//c_null_char, c_null_ptr, cache, error)
    call npcache_f_check(status, error)

    ! No version: the build ID of the program that holds bessel. After an edit and a rebuild the table is made anew.
    status = npcache_function_new(cache, 'bessel'//c_null_char, c_null_ptr, function, error)
    call npcache_f_check(status, error)
    status = npcache_function_add_object(function, c_funloc(bessel), error)
    call npcache_f_check(status, error)

    args = npcache_args_new()
    status = npcache_args_add_int(args, extents(1))
    status = npcache_args_add_int(args, extents(2))
    status = npcache_begin(function, args, -1_c_int64_t, result, todo, error)
    call npcache_f_check(status, error)
    if (c_associated(todo)) then                   ! not there yet, and this program is the one to compute it
        address = npcache_output_alloc(todo, c_null_char, NPCACHE_FLOAT64, 2_c_int32_t, extents, NPCACHE_ORDER_F)
        if (c_associated(address)) then
            call c_f_pointer(address, table, extents)
            call fill(table)
        end if
        status = npcache_output_commit(todo)       ! says so where the allocation failed, and npcache_end again
        status = npcache_end(todo, result, error)
        call npcache_f_check(status, error)
    end if

    status = npcache_f_array(result, 0_c_int32_t, NPCACHE_FLOAT64, extents, address)
    call npcache_f_check(status, error)
    call c_f_pointer(address, table, extents)      ! the stored array itself, valid until result is released
    if (npcache_buffer_origin(result) == NPCACHE_ORIGIN_COMPUTED) then
        print '(a, f14.12, a)', 'J_1(1) = ', table(2, 6), ', computed'
    else
        print '(a, f14.12, a)', 'J_1(1) = ', table(2, 6), ', from disk'
    end if

    call npcache_buffer_release(result)
    call npcache_args_free(args)
    call npcache_function_free(function)
    call npcache_free(cache)
end program
