/* The whole C ABI of npcache in one run: `abi DIRECTORY` prints what is not as npcache.h says, and a count.

   Relies on: DIRECTORY exists and is empty. One section a header file, each of them named for what it covers. */
#include "check.h"

#include "abi_call.h"
#include "abi_arrays.h"
#include "abi_failure.h"
#include "abi_split.h"
#include "abi_args.h"
#include "abi_directory.h"

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: abi DIRECTORY\n");
        return 2;
    }
    root = argv[1];
    call_tests();
    array_tests();
    failure_tests();
    split_tests();
    args_tests();
    directory_tests();
    return finish();
}
