# `make install` and `make uninstall`: what `make build` made, as a C library is found by pkg-config, by CMake, and by a
# compiler that is told where it is. docs/install.md says how each is used; tests/test_install.py does it.
#
#     make install PREFIX=/opt/npcache                        # libraries in LIBDIR, headers in INCLUDEDIR, npcache in BINDIR
#     make install PREFIX=/usr DESTDIR=staging                # for a package: as PREFIX says, but put below DESTDIR
#
# Nothing is compiled where `make build` was run before, so that `sudo make install` needs no Rust toolchain for root.

PREFIX     ?= /usr/local
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR     ?= $(PREFIX)/bin
MANDIR     ?= $(PREFIX)/share/man
INSTALL    ?= install
STRIP      ?= strip

# Each from the one place where it is decided.
version := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml)
soname  := $(shell sed -n 's/.*-soname,\(libnpcache\.so\.[0-9]*\)".*/\1/p' npcache-ffi/build.rs)

# What a program that links libnpcache.a needs besides, from `rustc --print native-static-libs`, less gcc_s and c, which
# every compiler driver adds by itself, and adds right with -static too.
static_libs := util rt pthread m dl

built     := target/release
headers   := $(wildcard include/npcache.h include/npcache.hpp include/npcache.f90)
cmakedir   = $(LIBDIR)/cmake/npcache
# Where each shell looks for what others bring along.
bash_file  = $(PREFIX)/share/bash-completion/completions/npcache
zsh_file   = $(PREFIX)/share/zsh/site-functions/_npcache
fish_file  = $(PREFIX)/share/fish/vendor_completions.d/npcache.fish
installed  = $(LIBDIR)/libnpcache.so.$(version) $(LIBDIR)/$(soname) $(LIBDIR)/libnpcache.so $(LIBDIR)/libnpcache.a \
	$(headers:include/%=$(INCLUDEDIR)/%) $(LIBDIR)/pkgconfig/npcache.pc \
	$(cmakedir)/npcacheConfig.cmake $(cmakedir)/npcacheConfigVersion.cmake \
	$(BINDIR)/npcache $(bash_file) $(zsh_file) $(fish_file)

# In npcache.pc, directories below PREFIX are written relative to it, for pkg-config --define-prefix; the CMake package
# finds them from its own place. So an installed tree can be moved.
fill = sed -e 's|@VERSION@|$(version)|g' -e 's|@SONAME@|$(soname)|g' -e 's|@STATIC_LIBS@|$(static_libs:%=-l%)|g' \
	-e 's|@PREFIX@|$(PREFIX)|g' \
	-e 's|@LIBDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))|g' \
	-e 's|@INCLUDEDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(INCLUDEDIR))|g' \
	-e "s|@STATIC_LIBS_LIST@|$$(echo $(static_libs) | tr ' ' ';')|g" \
	-e "s|@INCLUDEDIR_FROM_CMAKE@|$$(realpath -m --relative-to='$(cmakedir)' '$(INCLUDEDIR)')|g" \
	-e "s|@LIBDIR_FROM_CMAKE@|$$(realpath -m --relative-to='$(cmakedir)' '$(LIBDIR)')|g"

.PHONY: install uninstall

$(built)/libnpcache.so $(built)/libnpcache.a $(built)/npcache:
	$(MAKE) build

# A library is stripped beside its place and renamed into it: programs that have the old one mapped keep it whole.
install: $(built)/libnpcache.so $(built)/libnpcache.a $(built)/npcache
	$(INSTALL) -d '$(DESTDIR)$(LIBDIR)/pkgconfig' '$(DESTDIR)$(cmakedir)' '$(DESTDIR)$(INCLUDEDIR)'
	$(STRIP) --strip-unneeded -o '$(DESTDIR)$(LIBDIR)/libnpcache.so.new' $(built)/libnpcache.so
	$(STRIP) --strip-debug -o '$(DESTDIR)$(LIBDIR)/libnpcache.a.new' $(built)/libnpcache.a
	chmod 644 '$(DESTDIR)$(LIBDIR)/libnpcache.so.new' '$(DESTDIR)$(LIBDIR)/libnpcache.a.new'
	mv -f '$(DESTDIR)$(LIBDIR)/libnpcache.so.new' '$(DESTDIR)$(LIBDIR)/libnpcache.so.$(version)'
	mv -f '$(DESTDIR)$(LIBDIR)/libnpcache.a.new' '$(DESTDIR)$(LIBDIR)/libnpcache.a'
	ln -sfn libnpcache.so.$(version) '$(DESTDIR)$(LIBDIR)/$(soname)'
	ln -sfn $(soname) '$(DESTDIR)$(LIBDIR)/libnpcache.so'
	$(INSTALL) -m 644 $(headers) '$(DESTDIR)$(INCLUDEDIR)'
	@$(fill) packaging/npcache.pc.in > '$(DESTDIR)$(LIBDIR)/pkgconfig/npcache.pc'
	@$(fill) packaging/npcacheConfig.cmake.in > '$(DESTDIR)$(cmakedir)/npcacheConfig.cmake'
	@$(fill) packaging/npcacheConfigVersion.cmake.in > '$(DESTDIR)$(cmakedir)/npcacheConfigVersion.cmake'
	chmod 644 '$(DESTDIR)$(LIBDIR)/pkgconfig/npcache.pc' '$(DESTDIR)$(cmakedir)'/npcacheConfig*.cmake
	$(INSTALL) -d '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(MANDIR)/man1' $(foreach file,$(bash_file) $(zsh_file) $(fish_file),'$(DESTDIR)$(dir $(file))')
	$(STRIP) -o '$(DESTDIR)$(BINDIR)/npcache.new' $(built)/npcache
	chmod 755 '$(DESTDIR)$(BINDIR)/npcache.new'
	mv -f '$(DESTDIR)$(BINDIR)/npcache.new' '$(DESTDIR)$(BINDIR)/npcache'
	$(built)/npcache man --directory '$(DESTDIR)$(MANDIR)/man1'
	$(built)/npcache completions bash > '$(DESTDIR)$(bash_file)'
	$(built)/npcache completions zsh > '$(DESTDIR)$(zsh_file)'
	$(built)/npcache completions fish > '$(DESTDIR)$(fish_file)'
	chmod 644 '$(DESTDIR)$(MANDIR)/man1'/npcache*.1 $(foreach file,$(bash_file) $(zsh_file) $(fish_file),'$(DESTDIR)$(file)')

# With the variables of the installation. Caches are left alone.
uninstall:
	rm -f $(foreach file,$(installed),'$(DESTDIR)$(file)') '$(DESTDIR)$(MANDIR)/man1/npcache.1' '$(DESTDIR)$(MANDIR)/man1'/npcache-*.1
	[ ! -d '$(DESTDIR)$(cmakedir)' ] || rmdir --ignore-fail-on-non-empty '$(DESTDIR)$(cmakedir)'
