package process

import (
	"fmt"
	"os"
	"strings"
)

// Secret is a secret that may be given as a value or as the name of a file that holds it, not both. Blanks around what
// the file holds are cut off; an empty file is an error. name is the environment variable of the value, for errors. Empty
// when neither is given.
func Secret(name, value, file string) (string, error) {
	if file == "" {
		return value, nil
	}
	if value != "" {
		return "", fmt.Errorf("both %s and %s_FILE are given; give one", name, name)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read %s_FILE: %w", name, err)
	}
	secret := strings.TrimSpace(string(data))
	if secret == "" {
		return "", fmt.Errorf("read %s_FILE: %s is empty", name, file)
	}
	return secret, nil
}
