//go:build !windows

package backup

import (
	"errors"
	"os"
)

// syncDir writes the names in a directory to the disk for good.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
