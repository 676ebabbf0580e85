package rig

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Minted is what a Tinybird token says.
type Minted struct {
	Name   string `json:"name"`
	Scopes []struct {
		Resource string            `json:"resource"`
		Fixed    map[string]string `json:"fixed_params"`
	} `json:"scopes"`
}

// ReadMinted reads a Tinybird token. That it is genuine the stand-in for Tinybird has seen.
func ReadMinted(token string) (m Minted, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return m, errors.New("no token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(payload, &m)
	}
	if err != nil {
		return m, fmt.Errorf("the token: %w", err)
	}
	return m, nil
}
