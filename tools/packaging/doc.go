// Package packaging holds the files beside the code to what reads them: the Dockerfile to BuildKit's parser, the compose files to
// Compose's, the release config to GoReleaser's, the workflows to the rules of this repository. It has tests only.
package packaging
