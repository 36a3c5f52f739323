//! The example that copies images, over every interface (VIRTIO 1.4 §5.2).
#![cfg(all(feature = "soft", not(loom)))]

#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/block_copy.rs"]
mod block_copy;

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use block_copy::copy;

const SIZE: u64 = 256 << 20;
const MIB: usize = 1 << 20;

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("virtio-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// No two words of the image are equal, so that nothing can be missing or in the wrong place.
fn make_image(path: &str, size: u64) {
    let mut file = BufWriter::with_capacity(MIB, File::create(path).unwrap());
    for word in 0..size / 8 {
        let mixed = (word + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        file.write_all(&mixed.to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
}

#[track_caller]
fn same(a: &str, b: &str) {
    let mut files = [a, b].map(|path| File::open(path).unwrap());
    let mut buffers = [vec![0; MIB], vec![0; MIB]];
    let len = files[0].metadata().unwrap().len();
    assert_eq!(files[1].metadata().unwrap().len(), len);
    for at in (0..len).step_by(MIB) {
        let part = (len - at).min(MIB as u64) as usize;
        for (file, buffer) in files.iter_mut().zip(&mut buffers) {
            file.read_exact(&mut buffer[..part]).unwrap();
        }
        assert!(buffers[0][..part] == buffers[1][..part], "{a} and {b} differ after {at} bytes");
    }
}

fn empty(path: &str, size: u64) {
    let _ = fs::remove_file(path);
    File::create(path).unwrap().set_len(size).unwrap();
}

/// Device to device: what is read through one set-up is written through the same.
#[test]
fn an_image_of_256_mib_comes_through_every_interface_as_it_was() {
    let folder = Folder::new("copy");
    let (image, target) = (folder.file("image"), folder.file("target"));
    make_image(&image, SIZE);
    let ways = [
        "transport=pci-modern",
        "transport=pci-transitional&interface=modern",
        "transport=pci-transitional&interface=legacy",
        "transport=pci-legacy&endian=big",
        "transport=mmio",
        "transport=mmio-legacy",
    ];
    let rings = [
        "event_idx=on&indirect=on",
        "event_idx=off&indirect=on",
        "event_idx=on&indirect=off",
        "event_idx=off&indirect=off",
    ];
    for way in ways {
        for ring in rings {
            for run in ["thread", "inline"] {
                empty(&target, SIZE);
                let from = format!("soft:block?path={image}&readonly=on&{way}&{ring}&run={run}");
                let to = format!("soft:block?path={target}&{way}&{ring}&run={run}");
                assert_eq!(copy(&from, &to, |_, _| {}).unwrap(), SIZE, "{from}");
                same(&image, &target);
            }
        }
    }
}

#[test]
fn files_are_made_and_sized_and_odd_ends_are_filled_up() {
    let folder = Folder::new("files");
    let (image, disk, back) = (folder.file("image"), folder.file("disk"), folder.file("back"));
    make_image(&image, 3 << 20);
    File::options().write(true).open(&image).unwrap().set_len((3 << 20) - 100).unwrap();
    empty(&disk, 3 << 20);
    let device = format!("soft:block?path={disk}&queues=2");
    assert_eq!(copy(&image, &device, |_, _| {}).unwrap(), (3 << 20) - 100);
    fs::write(&back, vec![1; 4 << 20]).unwrap();
    let mut shown = Vec::new();
    assert_eq!(copy(&device, &back, |done, size| shown.push((done, size))).unwrap(), 3 << 20);
    assert_eq!(shown, [(1 << 20, 3 << 20), (2 << 20, 3 << 20), (3 << 20, 3 << 20)]);
    let (image, back) = (fs::read(image).unwrap(), fs::read(back).unwrap());
    assert!(back[..image.len()] == image && back[image.len()..] == [0; 100]);
}

#[test]
fn what_cannot_be_copied_is_an_error_that_says_why() {
    let folder = Folder::new("errors");
    let image = folder.file("image");
    make_image(&image, MIB as u64);
    let small = copy(&image, "soft:block?size=512K", |_, _| {}).unwrap_err().to_string();
    assert!(small.contains("524288") && small.contains("1048576"), "{small}");
    let refused = copy(&image, "soft:block?size=1M&readonly=on", |_, _| {}).unwrap_err().to_string();
    assert!(refused.contains("read-only"), "{refused}");
    assert!(copy(&folder.file("none"), &image, |_, _| {}).is_err());
    assert!(copy("soft:entropy", &folder.file("out"), |_, _| {}).is_err());
    assert!(
        Path::new(&image).metadata().unwrap().len() == MIB as u64,
        "an argument is not made into a target"
    );
}
