// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

/** An input device, fed by a descriptor. */
union InputDevice {
    parcelable SingleTouch {
        ParcelFileDescriptor pfd;
        int width = 1280;
        int height = 1080;
        @utf8InCpp String name = "";
    }
    parcelable EvDev {
        ParcelFileDescriptor pfd;
    }
    parcelable Keyboard {
        ParcelFileDescriptor pfd;
    }
    parcelable Mouse {
        ParcelFileDescriptor pfd;
    }
    parcelable Switches {
        ParcelFileDescriptor pfd;
    }
    parcelable Trackpad {
        ParcelFileDescriptor pfd;
        int width = 1280;
        int height = 1080;
        @utf8InCpp String name = "";
    }
    parcelable MultiTouch {
        ParcelFileDescriptor pfd;
        int width = 1280;
        int height = 1080;
        @utf8InCpp String name = "";
    }

    SingleTouch singleTouch;
    EvDev evDev;
    Keyboard keyboard;
    Mouse mouse;
    Switches switches;
    Trackpad trackpad;
    MultiTouch multiTouch;
}
