package file

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// publish renames exclusively, in one step; file systems that cannot (NFS, some
// FUSE) get a link.
func publish(tmp, final string) error {
	err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, final, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTSUP):
		return publishByLink(tmp, final)
	}
	return &os.LinkError{Op: "renameat2", Old: tmp, New: final, Err: err}
}
