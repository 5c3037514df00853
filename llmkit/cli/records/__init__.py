"""Commands that show and change what the store keeps."""
