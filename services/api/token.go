package api

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tokenBytes is how much randomness a made token has.
const tokenBytes = 32

// LoadOrCreateToken reads the token in a file, or makes one there: 32 random bytes in hex, readable by the owner only
// (0600). The file appears whole or not at all, and of two processes that make it at once both get the same token.
// Errors: an empty file, one that can't be read or made; its directory must exist.
func LoadOrCreateToken(path string) (string, error) {
	token, err := readToken(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	if err := createToken(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make token file %s: %w", path, err)
	}
	return readToken(path)
}

func readToken(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read token file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("token file %s is empty: delete it to have one made, or write a token into it", path)
	}
	return token, nil
}

// createToken writes aside and links into place, which fails where somebody was faster.
func createToken(path string) (err error) {
	aside, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(aside.Name())) }()
	random := make([]byte, tokenBytes)
	_, _ = rand.Read(random) // never fails
	_, err = aside.WriteString(hex.EncodeToString(random) + "\n")
	if err = errors.Join(err, aside.Sync(), aside.Close()); err != nil {
		return err
	}
	return os.Link(aside.Name(), path)
}
